"""`tb-cli completion`: what a shell reads to complete words."""

from tb_cli.frame.completion_scripts import SCRIPTS
from tb_cli.frame.options import check_choices
from tb_cli.frame.render import emit
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, takes


@takes(argument("shell", "|".join(SCRIPTS), "The shell.", complete="shell"))
@examples("tb-cli completion bash")
def completion(session: Session, shell: str) -> None:
    """In bash: `source <(tb-cli completion bash)`; in zsh a file `_tb-cli` on `fpath`, or the same
    as in bash after `compinit`; in fish: `tb-cli completion fish | source`. A package puts it where
    the shell looks. Ids, states, owners and workloads are those of the home at hand, the fields of
    --columns and --sort those of the list.
    """
    check_choices("bash|zsh|fish", [shell], tuple(SCRIPTS))
    script = SCRIPTS[shell]
    emit(session, {"shell": shell, "script": script}, script.rstrip("\n").split("\n"))
