"""Two markets on one machine that send each other bundles, scores and receipts.

The link between them is cut at any byte, whoever sends and whoever receives is killed, messages
come twice and in another order: in the end each has what the other gave it, once.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from blake3 import blake3

from compute_market.courier import courier, deliveries
from compute_market.courier.courier import id_text
from compute_market.offers import standing
from compute_market.reputation import reputation
from compute_market.settlement import ledger
from tests.support.attacks import Attacks
from tests.support.effort import effort
from tests.support.link import WHOLE, Cut, Link, link
from tests.support.processes import (
    CONFIG,
    ENDS_WITHIN_S,
    PRICE,
    Home,
    Running,
    differences,
    fund,
    ids,
    random,
    slice_files,
    snapshot,
    submit_jobs,
    until,
)

FLUSH = ("compute", "courier", "flush")
IMPORT = ("compute-market", "receipts", "import")
SYNC = ("net", "reputation", "sync")
REWARD = 3
ROUNDS = effort(2, 40)
BUNDLES = 5  # of each round
# An envelope with its bundle, and an acknowledgement, have about so many bytes.
LENGTH = 13_000

SETTINGS = f"""\
courier_reward_ct = {REWARD}
courier_backoff_ms = 5
courier_timeout_secs = 5
courier_lease_secs = 1
"""


class Market(Home):
    """A home with a server that may be started and killed."""

    server: Running | None = None

    def settle(self, peer: "Market", url: str = "") -> None:
        """Trust another market, and have its address."""
        key_id = peer.run("key", "show", "node", "--json")[2].split('"')[3]
        settings = SETTINGS + (f'courier_dest = "{url}"\n' if url else "")
        net = f'[net]\ntrusted = ["{key_id}"]\n' + (f'peers = ["{url}"]\n' if url else "")
        (self.path / "config.toml").write_text(settings + CONFIG.format(slots=100) + net)

    def serve(self, over: Link) -> None:
        self.server = self.start("serve", "--port", "0")
        until(lambda: self.server is not None and bool(self.server.lines() or self.server.ended))
        over.to = int(self.server.lines()[0].rpartition(":")[2])

    def kill(self, over: Link) -> None:
        assert self.server is not None
        over.to = None
        assert self.server.kill()

    def send(self, bundles: list[Path], *to: str) -> None:
        """Bundles from alice, all in one process."""
        words = " ".join(("--to", *to)) if to else ""
        lines = [f"compute courier send {path} alice {words}" for path in bundles]
        self.run("batch", "-", stdin="\n".join(lines))

    def delivered(self) -> list[tuple[str, bytes]]:
        """What was brought here: the ids and hashes of bundles."""
        found = self.view(lambda txn: [each for _, each in deliveries.deliveries(txn)])
        return [(id_text(each.receipt_id), each.bundle_hash) for each in found]

    def sent(self) -> list[tuple[str, bytes]]:
        """What was acknowledged of what was sent from here, and nothing is left."""
        found = self.view(lambda txn: list(courier.receipts(txn)))
        assert {each.state for each in found} == {"acknowledged"}
        return [(id_text(each.receipt_id), each.bundle_hash) for each in found]

    def inbox(self) -> dict[str, bytes]:
        found = self.path / "inbox"
        return {path.name: path.read_bytes() for path in found.iterdir() if path.name[0] != "."}

    def earned(self) -> list[int]:
        """The rewards of alice, each a posting of its own."""
        rows = self.run("wallet", "history", "alice")
        return [int(row.split("\t")[3]) for row in rows if "\tcourier:reward\t" in row]

    def scores(self) -> dict[str, int]:
        found = self.view(lambda txn: list(reputation.entries(txn)))
        return {provider: record.score for provider, record in found}

    def pardon(self, provider: str, delta: int) -> None:
        self.update(lambda txn: standing.pardon(txn, provider, delta, "a reason"))


@pytest.fixture
def markets(tmp_path: Path) -> Iterator[list[Market]]:
    found = [Market(tmp_path / name) for name in ("ours", "theirs")]
    for each in found:
        each.path.mkdir(mode=0o700)
        (each.path / "config.toml").write_text(CONFIG.format(slots=100))
        each.run("key", "new", "node")
        fund(each)
    yield found
    for each in found:
        if each.server is not None and not each.server.ended:
            each.server.kill()


def bundle_files(directory: Path, rng: Random, turn: int) -> list[Path]:
    """Bundles of any length, one of them empty."""
    found = []
    for number in range(BUNDLES):
        path = directory / f"bundle-{turn}-{number}"
        path.write_bytes(rng.randbytes(rng.choice((0, 10, 100, 5000, 300_000)) if number else 0))
        found.append(path)
    return found


def ended(home: Market, *command: str) -> None:
    """Run a command that is pending for now until it is not: others' leases end by themselves."""
    give_up = time.monotonic() + ENDS_WITHIN_S
    while (code := (running := home.start(*command)).end()) != 0:
        assert code == 10, running.errors()
        assert time.monotonic() < give_up, running.errors()
        time.sleep(0.2)


def check(*markets: Market) -> None:
    for each in markets:
        assert each.violations(log=False) == []


@pytest.mark.slow
def test_what_goes_over_a_link_that_breaks_arrives_once(
    tmp_path: Path, markets: list[Market], attacks: Attacks
) -> None:
    rng = random("two markets")
    ours, theirs = markets

    def cut() -> Cut:
        up, down = (rng.choice((None, rng.randrange(LENGTH))) for _ in range(2))
        return rng.choice((WHOLE, Cut(up, down)))

    with link(cut) as over:
        ours.settle(theirs, f"http://127.0.0.1:{over.port}/")
        theirs.settle(ours)
        theirs.serve(over)
        contents: dict[str, bytes] = {}
        for turn in range(1, ROUNDS + 1):
            files = bundle_files(tmp_path, rng, turn)
            contents |= {blake3(path.read_bytes()).hexdigest(): path.read_bytes() for path in files}
            ours.send(files)
            ours.pardon(f"prov-{turn}", rng.randrange(1, 9))
            running = [ours.start(*FLUSH, "--max-attempts", "3"), ours.start(*SYNC)]
            time.sleep(rng.uniform(0, 1))
            for each in running:
                if rng.random() < 0.5:
                    each.kill()
            theirs.kill(over)
            check(ours, theirs)
            theirs.serve(over)
            for each in running:
                each.end()
        over.cuts = lambda: WHOLE
        ended(ours, *FLUSH)
        ended(ours, *SYNC)
        check(ours, theirs)
        assert sorted(theirs.delivered()) == sorted(ours.sent())
        assert theirs.inbox() == contents
        assert ours.earned() == [REWARD] * BUNDLES * ROUNDS
        told = ours.scores()
        assert {name: theirs.scores()[name] for name in told if name != "prov"} == {
            name: score for name, score in told.items() if name != "prov"
        }

        # All that was ever on the line comes once more, the last first, and once more after that.
        before = snapshot(theirs)
        for request in (*reversed(over.requests), *over.requests):
            over.replay(bytes(request))
        after = snapshot(theirs)
        assert [each for each in differences(before, after) if "gossip" not in each] == []
        # And what was acknowledged is forwarded again.
        ours.run("compute", "courier", "resend", *(name for name, _ in ours.sent()))
        ended(ours, *FLUSH)
        assert sorted(theirs.delivered()) == sorted(ours.sent())
        assert ours.earned() == [REWARD] * BUNDLES * ROUNDS
        assert theirs.inbox() == contents
        check(ours, theirs)
        attacks("a link cut, a server or a sender killed while bundles and scores are sent", ROUNDS)
        attacks("a message between two markets that comes again", 2 * len(over.requests))


@pytest.mark.slow
def test_what_is_carried_on_a_stick_arrives_once(
    tmp_path: Path, markets: list[Market], attacks: Attacks
) -> None:
    rng = random("a stick")
    ours, theirs = markets
    ours.settle(theirs)
    theirs.settle(ours)
    stick = tmp_path / "stick"
    stick.mkdir()
    contents: dict[str, bytes] = {}
    slices = slice_files(tmp_path / "slices")[:1]
    receive = ("compute", "courier", "receive", str(stick))
    paid = theirs.view(lambda txn: ledger.balance(txn, ledger.wallet("prov"), "CT"))
    kills = jobs = 0
    for turn in range(1, ROUNDS + 1):
        files = bundle_files(tmp_path, rng, turn)
        contents |= {blake3(path.read_bytes()).hexdigest(): path.read_bytes() for path in files}
        ours.send(files, f"dir:{stick}")
        for home, command in ((ours, FLUSH), (theirs, receive)):
            if home is ours or (stick / "envelopes").is_dir():
                running = home.start(*command)
                time.sleep(rng.uniform(0, 0.6))
                kills += running.kill()
        new = ids(f"job-{turn}-", 2)
        jobs += len(new)
        submit_jobs(ours, dict.fromkeys(new, slices))
        ours.run("compute", "execute", *new)
        # All so far, so that most receipts come again; the second file before the first.
        for name in ("later", "earlier"):
            ours.run(
                *("compute-market", "receipts", "export", str(stick.with_name(name))),
                *("--key", "node", "--to", str(jobs if name == "later" else jobs - 1)),
            )
        for name in ("later", "earlier", "later"):
            running = theirs.start(*IMPORT, str(stick.with_name(name)))
            time.sleep(rng.uniform(0, 0.6))
            kills += running.kill()
        check(ours, theirs)
    ended(ours, *FLUSH)
    for _ in range(2):
        theirs.run(*receive)
        for name in ("later", "earlier"):
            theirs.run(*IMPORT, str(stick.with_name(name)))
    check(ours, theirs)
    assert sorted(theirs.delivered()) == sorted(ours.sent())
    assert theirs.inbox() == contents
    assert ours.earned() == [REWARD] * BUNDLES * ROUNDS
    now = theirs.view(lambda txn: ledger.balance(txn, ledger.wallet("prov"), "CT"))
    assert now - paid == jobs * PRICE
    attacks("a flush, a receive or an import between two markets killed", kills)
