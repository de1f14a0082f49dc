"""What lists look like on terminals: every screen as a file, to be looked at.

`RENEW_GOLDEN=1 pytest tests/cli/test_screens.py` writes the files anew.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from tb_cli.entry import call
from tests.cli.test_tables import Terminal
from tests.support.cli import Cli, operating
from tests.support.listed import fill, fixed_clock

pytest_plugins = ("tests.support.cli",)

GOLDEN = Path(__file__).with_name("golden")
# Without what is drawn anew for each market: ids of bundles and bids, keys and their hashes.
SCREENS = (
    "compute list",
    "compute list --all",
    "compute list --all --utc --columns job_id,state,submitted_at,deadline",
    "compute list --buyer nobody",
    "compute queue",
    "compute history render-3",
    "compute offer list",
    "compute courier list --columns sender,state,bytes,timestamp,attempts,dest,last_error",
    "compute-market params history",
    "compute-market receipts list",
    "wallet history alice --event deposit,escrow:lock,escrow:refund,settle",
    "wallet list",
    "wallet statement alice --since 12:01 --until 12:02",
    "wallet statement prov --by job",
    "bid list --columns state,reveal_from,reveal_until,owner,bond_ct",
    "net reputation show",
    "key list --columns name,kind",
    "log --since 12:02 --event job_queued,job_completed,job_cancelled,score_adjusted",
    "log --until 12:01 --limit 3 --utc",
)


def screens(cli: Cli, width: int, *more: str) -> str:
    """What a terminal so many columns wide shows of all of them."""
    variables = {"COLUMNS": str(width), "TERM": "xterm"}
    found = []
    for line in SCREENS:
        shown = Terminal()
        with mock.patch.dict(os.environ, variables), mock.patch.object(sys, "stdout", shown):
            assert call([*line.split(), *more]) == 0
        found.append(f"$ tb-cli {line}\n{shown.getvalue()}")
    return "\n".join(found)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The same market for all: looking changes nothing."""
    directory = tmp_path_factory.mktemp("screens", numbered=False)
    with pytest.MonkeyPatch.context() as patch, operating(directory, patch) as cli:
        fixed_clock(cli, patch)
        fill(cli)
        yield cli


@pytest.mark.parametrize(
    ("width", "more", "name"),
    [
        (40, ("--no-color",), "40.txt"),
        (80, ("--no-color",), "80.txt"),
        (80, (), "80-color.txt"),
        (120, ("--no-color",), "120.txt"),
        (120, (), "120-color.txt"),
    ],
)
def test_screen_is_as_it_was_when_it_was_looked_at(
    shop: Cli, width: int, more: tuple[str, ...], name: str
) -> None:
    found = screens(shop, width, *more)
    path = GOLDEN / name
    if "RENEW_GOLDEN" in os.environ:
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(found)
    assert found == path.read_text()
    if more:
        assert "\x1b" not in found
        assert all(len(line) <= width or line.startswith("$") for line in found.splitlines())
