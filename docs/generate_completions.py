"""Writes the completion scripts that packages bring, for each shell, into `completions/`.

They are what `tb-cli completion` prints. Run it with `python docs/generate_completions.py` after
those have changed; a test compares the two.
"""

import sys
from pathlib import Path

from tb_cli.frame.completion_scripts import SCRIPTS

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "completions"
# What each shell looks for in the directories of a package.
FILES = {"bash": "tb-cli.bash", "zsh": "_tb-cli", "fish": "tb-cli.fish"}


def render() -> dict[str, str]:
    """The text of each file, by its name."""
    return {name: SCRIPTS[shell] for shell, name in FILES.items()}


def main() -> None:
    TARGET.mkdir(exist_ok=True)
    for name, text in render().items():
        (TARGET / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
