"""What a shell reads to complete the words of `tb-cli`: it asks the program itself.

The program is told the line up to the cursor and answers with one word per line, what it means
behind a tab.
"""

from typing import Final

_ASKS: Final = "_TB_CLI_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args"

# Bash ends a word at more characters than a blank: it knows only what is behind the last of them,
# as of `ns:job-1`, and puts in what it is given from there on. An @ it ends a word at, and takes
# for the beginning of the next one.
_BASH: Final = f"""\
_tb_cli_completion() {{
    local IFS=$'\\n' line="${{COMP_LINE:0:COMP_POINT}}" word head each
    word="${{line##*[[:space:]]}}"
    head="${{word%"${{word##*["$COMP_WORDBREAKS"]}}"}}"
    head="${{head%@}}"
    COMPREPLY=()
    for each in $(env {_ASKS} _TYPER_COMPLETE_ARGS="$line" "$1" 2>/dev/null); do
        each="${{each%%$'\\t'*}}"
        COMPREPLY+=("${{each#"$head"}}")
    done
}}
complete -o default -F _tb_cli_completion tb-cli
"""

_ZSH: Final = f"""\
#compdef tb-cli
_tb_cli_completion() {{
    local -a found
    local each line="${{words[1,CURRENT]}}"
    for each in ${{(f)"$(env {_ASKS} _TYPER_COMPLETE_ARGS="$line" ${{words[1]}} 2>/dev/null)"}}; do
        found+=("${{${{each%%$'\\t'*}}//:/\\\\:}}:${{each#*$'\\t'}}")
    done
    if (( ${{#found}} )); then
        _describe -V tb-cli found
    else
        _files
    fi
}}
if [[ ${{funcstack[1]}} == _tb-cli ]]; then
    _tb_cli_completion "$@"
else
    compdef _tb_cli_completion tb-cli
fi
"""

_FISH: Final = f"""\
function __tb_cli_completion
    set --local found (env {_ASKS} _TYPER_COMPLETE_ARGS=(commandline -cp) tb-cli 2>/dev/null)
    if test -n "$found"
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --command tb-cli --no-files --arguments '(__tb_cli_completion)'
"""

SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
