"""Writes the completion scripts that packages bring, for each shell, into `completions/`.

Run it with `python docs/generate_completions.py` after Typer has changed; a test compares the two.
"""

import sys
from pathlib import Path

from typer._completion_shared import get_completion_script

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "completions"
# What each shell looks for in the directories of a package.
FILES = {"bash": "tb-cli.bash", "zsh": "_tb-cli", "fish": "tb-cli.fish"}
_AUTOLOADED = """\
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  {function} "$@"
else
  {defined}
fi"""


def render() -> dict[str, str]:
    """The text of each file, by its name."""
    return {name: f"{_script(shell)}\n" for shell, name in FILES.items()}


def _script(shell: str) -> str:
    found: str = get_completion_script(
        prog_name="tb-cli", complete_var="_TB_CLI_COMPLETE", shell=shell
    )
    if shell != "zsh":
        return found
    # Loaded as a function, it is called for the word that is being completed.
    before, _, defined = found.rpartition("\n")
    function = defined.split()[1]
    return f"{before}\n{_AUTOLOADED.format(function=function, defined=defined)}"


def main() -> None:
    TARGET.mkdir(exist_ok=True)
    for name, text in render().items():
        (TARGET / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
