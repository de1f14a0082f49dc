_tb_cli_completion() {
    local IFS=$'\n' line="${COMP_LINE:0:COMP_POINT}" word head each
    word="${line##*[[:space:]]}"
    head="${word%"${word##*["$COMP_WORDBREAKS"]}"}"
    head="${head%@}"
    COMPREPLY=()
    for each in $(env _TB_CLI_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS="$line" "$1" 2>/dev/null); do
        each="${each%%$'\t'*}"
        COMPREPLY+=("${each#"$head"}")
    done
}
complete -o default -F _tb_cli_completion tb-cli
