"""A market that trusts another one, and what that one posts to it.

A test module asks for its fixtures with `pytest_plugins`, beside those of `tests.support.cli`.
"""

import json
import time
from collections.abc import Callable, Iterator

import pytest

from compute_market.courier import deliveries, envelope
from compute_market.courier.envelope import Acknowledgement, Entry
from compute_market.reputation import gossip
from compute_market.reputation.gossip import Told
from compute_market.signatures.keys import Key
from tests.support.cli import Cli
from tests.support.deliveries import CONTENT, entry
from tests.support.importing import THEIRS
from tests.support.receipt_file import KEY
from tests.support.serving import Answer, Serving, serving


@pytest.fixture
def trusting(cli: Cli) -> None:
    """A market that trusts another."""
    cli.ok("state", "init")
    (cli.home / "config.toml").write_text(
        f'courier_timeout_secs = 1\n[net]\ntrusted = ["{KEY.key_id.hex()}"]\n'
    )


@pytest.fixture
def far(trusting: None) -> Iterator[Serving]:
    """The server, from outside."""
    with serving() as found:
        yield found


def parcel(sent: Entry | None = None, content: bytes = CONTENT, key: Key = KEY) -> bytes:
    """A bundle as it is posted."""
    return envelope.text(THEIRS, key, [sent or entry(content=content)]) + content


def acknowledged(answer: Answer) -> Acknowledgement:
    assert answer.status == 200, answer
    return envelope.parse_acknowledgement(answer.body, "the answer")


def stored(cli: Cli) -> dict[str, bytes]:
    """The files of the inbox."""
    found = cli.home / "inbox"
    return {path.name: path.read_bytes() for path in found.iterdir()} if found.exists() else {}


def taken(far: Serving) -> int:
    return far.view(lambda txn: len(list(deliveries.deliveries(txn))))


def logged(err: str) -> list[dict[str, object]]:
    """The lines of the log, without the one that there is no price board yet."""
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    return [line for line in lines if not line.get("told", "").startswith("no price board")]


def told(*scores: tuple[str, int, int], key: Key = KEY) -> dict[str, str]:
    """The parameters that tell scores with their epochs."""
    entries = [Told(*each) for each in scores]
    (text,) = gossip.messages(entries, key, THEIRS, 0)
    return {"message": text.decode()}


def wait_until(is_so: Callable[[], bool]) -> None:
    """Until it is so, for a while."""
    for _ in range(500):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to it")
