"""The runbooks: a section for each alert, and nothing in them that does not exist."""

import json
import re
import shlex
from pathlib import Path

import pytest

from monitoring.alerts import ALERTS, GROUPS, Alert
from monitoring.series import EXPOSED
from tb_cli.frame import plain
from tb_cli.frame.verbs import Group, Verb
from tb_cli.tree import TREE
from tests.support.cli import Cli, Prepared

pytest_plugins = ("tests.support.cli",)

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


COMMANDS = sorted({command for text in SECTIONS.values() for command in commands(text)})


def prepare(cli: Cli) -> None:
    """A market in which there is what the runbooks speak of."""
    cli.real()
    cli.ok("wallet", "deposit", "PROVIDER", "--ct", "100")
    cli.post("--offer-id", "OFFER", provider="PROVIDER")
    cli.submit("JOB")
    cli.ok("key", "new", "node")
    cli.ok("compute-market", "params", "propose", "comfort_threshold_p90", "3000")
    cli.ok("compute-market", "settle", "dry-run", "--reason", "stopped")
    cli.ok("state", "backup", cli.directory / "kept")
    offer = {"provider": "PROVIDER", "units": 5, "price_per_unit": 2, "offer_id": "NEXT"}
    job = {"buyer": "alice", "workload": "transcode", "slices": [{"path": str(cli.slice())}]}
    for name, content in (("offer", offer), ("job", {"job_id": "LATER", **job})):
        (cli.directory / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("prepared"), prepare)


def words_of(cli: Cli, command: str) -> list[str]:
    """A command as it is typed: where it names something of the operator's, with one of those."""
    kept = str(cli.directory / "kept")
    if command.startswith("tb-cli state restore"):
        return ["--home", str(cli.directory / "empty"), "state", "restore", kept]
    files = {"offer post": cli.directory / "offer.json", "explain": cli.directory / "job.json"}
    given = {
        "DIR": kept if "--home" in command else str(cli.directory / "new"),
        "FILE": str(
            next((path for verb, path in files.items() if verb in command), f"{kept}.prom")
        ),
        "N": "3000",
        "ID": "1",
    }
    return [given.get(word, word) for word in shlex.split(command)[1:]]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_runbooks_works(
    prepared: Prepared, cli: Cli, command: str, measured_little: None
) -> None:
    prepared.copy_to(cli)
    done = cli(*words_of(cli, command))
    assert done.code == 0, done


@pytest.mark.parametrize(
    "command", ["tb-cli compute cancel --everything", "tb-cli no such", "tb-cli log -x"]
)
def test_command_that_is_none_is_noticed(command: str) -> None:
    assert not exists(command)


def test_counters_that_are_named_are_scraped() -> None:
    named = set(re.findall(r"`([a-z0-9_]+_total)`", PAGE))
    assert named
    assert named <= EXPOSED.keys()
