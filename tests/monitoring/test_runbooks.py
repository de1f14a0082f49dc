"""The runbooks: a section for each alert, and nothing in them that does not exist."""

import re
import shlex
from pathlib import Path

import pytest

from monitoring.alerts import ALERTS, GROUPS, Alert
from monitoring.series import EXPOSED
from tb_cli.frame import plain
from tb_cli.frame.verbs import Group, Verb
from tb_cli.tree import TREE

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "runbooks.md").read_text()
SECTIONS = dict(re.findall(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
# What stands for something that only the operator knows.
PLACEHOLDERS = {"N": "1", "FILE": "file", "DIR": "dir", "ID": "1"}


def commands(text: str) -> list[str]:
    """Every command of a text, in a fence or in a line."""
    fenced = re.findall(r"^tb-cli .+$", text, re.MULTILINE)
    return fenced + [" ".join(found.split()) for found in re.findall(r"`(tb-cli\s[^`]+)`", text)]


def exists(command: str) -> bool:
    """Whether it could be typed, or is the name of a command."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)[1:]]
    if plain.read(TREE, words) is not None:
        return True
    node: Group | Verb = TREE
    for word in words:
        if not isinstance(node, Group) or word not in node.commands:
            return False
        node = node.commands[word]
    return isinstance(node, Verb)


def test_every_alert_has_a_section() -> None:
    assert list(SECTIONS) == [alert.name for alerts in GROUPS.values() for alert in alerts]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_section_tells_what_to_look_at_and_when_it_ends(alert: Alert) -> None:
    text = SECTIONS[alert.name]
    told = " ".join(text.split())
    assert alert.summary in told
    assert alert.means in told
    # What the alert says to run first is the first command.
    fence = re.search(r"```sh\n(.*?)\n```", text, re.DOTALL)
    assert fence is not None
    assert fence[1].split("\n")[0] == alert.look
    assert re.search(r"\*\*Resolves\*\* .+\.", text)


@pytest.mark.parametrize("title", SECTIONS)
def test_section_names_commands_that_there_are(title: str) -> None:
    found = commands(SECTIONS[title])
    assert found
    assert [command for command in found if not exists(command)] == []


@pytest.mark.parametrize(
    "command", ["tb-cli compute execute --all", "tb-cli no such", "tb-cli log -x"]
)
def test_command_that_is_none_is_noticed(command: str) -> None:
    assert not exists(command)


def test_counters_that_are_named_are_scraped() -> None:
    named = set(re.findall(r"`([a-z0-9_]+_total)`", PAGE))
    assert named
    assert named <= EXPOSED.keys()
