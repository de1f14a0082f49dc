"""Sealed bids by the command line: from one home to another, in the window, and what it costs."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from compute_market.bids import bid_files, bids
from compute_market.bids.sealing import Terms
from compute_market.records import replace
from compute_market.signatures import keys
from compute_market.store.txn import Txn
from tests.cli.test_streams import run
from tests.support.cli import RECEIPT_FIELDS, Cli, Done

pytest_plugins = ("tests.support.cli",)

WINDOW = 100
SEED = bytes(range(32))
FIELDS = [
    *("bid_id", "bidder", "state", "height", "reveal_from", "reveal_until", "sequence"),
    *("commitment", "job_id", "owner", "bond_ct", "overdue", "refused", "committed_at"),
]


def add_key(home: Path, name: str = "alice", seed: bytes = SEED) -> str:
    """A key of the home; returns its id."""
    directory = home / "keys"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = keys.key_of(seed)
    path = directory / f"{name}.key"
    path.touch(0o600)
    path.write_bytes(keys.secret_text(key))
    return key.key_id.hex()


def job_file(cli: Cli, job_id: str = "j1", **more: Any) -> Path:
    job = {"job_id": job_id, "buyer": "alice", "workload": "transcode", "max_price_per_unit": 9}
    cli.slice()
    path = cli.directory / f"{job_id}.json"
    path.write_text(json.dumps(job | {"slices": ["a.slice"]} | more))
    return path


def ready(cli: Cli, *, real: bool = False) -> None:
    """A market with an offer, and a key."""
    cli.ok("state", "init")
    if real:
        cli.real()
    cli.post(price=5)
    add_key(cli.home)


def commit(cli: Cli, job_id: str = "j1", *more: str, **fields: Any) -> str:
    words = ("bid", "commit", job_file(cli, job_id, **fields), "--bidder", "alice", *more)
    found: str = cli.document(*words)["bid_id"]
    return found


def bid(cli: Cli, bid_id: str) -> dict[str, Any]:
    found: dict[str, Any] = cli.document("bid", "show", bid_id)
    return found


def refused(done: Done) -> tuple[int, str, str]:
    error = done.error
    return done.code, error["error"], error.get("reason", "")


def secret(cli: Cli, bid_id: str) -> Path:
    return cli.home / "bids" / f"{bid_id}.secret"


def test_bid_is_sealed_and_then_submitted_as_its_job(cli: Cli) -> None:
    ready(cli)
    words = ("bid", "commit", job_file(cli), "--bidder", "alice")
    done = cli.ok(*words)
    (document,) = cli.document("bid", "list")
    bid_id = document["bid_id"]
    begin = document["height"]
    window = f"reveal it from height {begin + 2} on, until height {begin + 100}"
    assert done == f"committed to bid {bid_id}: {window}\n"
    assert list(document) == FIELDS
    assert (
        document | {"bid_id": bid_id, "state": "committed", "sequence": 1, "job_id": None}
        == document
    )
    assert document["owner"] == "alice"
    assert cli.document("compute", "list") == []
    cli.advance(2)
    assert cli.ok("bid", "reveal", bid_id) == f"revealed bid {bid_id}: job j1 active\n"
    assert bid(cli, bid_id) | {"state": "revealed", "job_id": "j1"} == bid(cli, bid_id)
    assert cli.job("j1")["state"] == "active"
    # Nobody hashes again what was hashed when the bid was sealed.
    cli.ok("compute", "execute", "j1")
    assert cli.job("j1")["state"] == "completed"


def test_bid_goes_from_one_home_to_another_by_files_and_is_executed_there(cli: Cli) -> None:
    """The bidder has no market at all: it knows the id and the height of that of the others."""
    cli.ok("state", "init")
    cli.post(price=5)
    chain = cli.document("chain", "status")
    away = cli.directory / "away"
    key_id = add_key(away, "me")
    words = ("--market", chain["market_id"], "--height", str(chain["height"]), "--sequence", "7")
    sealed = cli.document("bid", "commit", job_file(cli), "--bidder", "me", *words, "--home", away)
    bid_id = sealed["bid_id"]
    assert not (away / "market").exists()
    cli.ok("bid", "export", bid_id, "sealed.bid", "--home", away)
    assert cli.ok("bid", "export", bid_id, "--home", away) == Path("sealed.bid").read_text()
    imported = cli.document("bid", "import", "sealed.bid", "--owner", "alice")
    assert imported["changed"]
    assert (imported["bidder"], imported["owner"], imported["sequence"]) == (key_id, "alice", 7)
    again = cli.document(
        "bid", "import", "-", "--owner", "alice", stdin=Path("sealed.bid").read_text()
    )
    assert again == imported | {"changed": False}
    cli.advance(2)
    done = cli("bid", "reveal", bid_id, "--to", "open.bid", "--home", away)
    assert done.code == 0
    assert done.err.startswith(f"warning: bid {bid_id} is for market {chain['market_id']}")
    # The slice is not there to be read: its reference is in the bid.
    Path("a.slice").rename("elsewhere")
    found = cli.document("bid", "import-reveal", "open.bid")
    assert (found["state"], found["job"]["state"]) == ("revealed", "active")
    Path("elsewhere").rename("a.slice")
    cli.ok("compute", "execute", "j1")
    (receipt,) = cli.document("compute-market", "receipts", "list")
    assert list(receipt) == RECEIPT_FIELDS
    assert (receipt["buyer"], receipt["units"]) == ("alice", 1)


def test_nothing_tells_of_the_job_before_it_is_revealed(cli: Cli) -> None:
    ready(cli, real=True)
    path = job_file(cli, "the-hidden-job", max_price_per_unit=987654)
    path.rename("j.json")
    told = cli.ok("bid", "commit", "j.json", "--bidder", "alice")
    bid_id = cli.document("bid", "list")[0]["bid_id"]
    opening = bid_files.parse_secret(secret(cli, bid_id).read_bytes(), "it").opening
    told += cli.ok("bid", "export", bid_id) + cli.ok("log", "--json") + cli.ok("bid", "list")
    told += cli.ok("bid", "show", bid_id) + cli.ok("metrics")
    cli.ok("state", "backup", "copy")
    everything = {Path(name): content for name, (_, content) in cli.files().items()}
    everything |= {path: path.read_bytes() for path in Path("copy").rglob("*") if path.is_file()}
    everything[Path("said")] = told.encode()
    assert everything.pop(Path("bids") / f"{bid_id}.secret")
    for hidden in (opening.salt, opening.state, b"the-hidden-job", b"987654"):
        for name, content in everything.items():
            assert hidden not in content, name
            assert hidden.hex().encode() not in content, name


def test_secret_is_private(cli: Cli) -> None:
    ready(cli)
    bid_id = commit(cli)
    path = secret(cli, bid_id)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    cli.advance(2)
    path.chmod(0o640)
    done = cli("bid", "reveal", bid_id)
    assert (done.code, "may be read" in done.err) == (2, True)
    path.chmod(0o600)
    path.rename("kept")
    path.symlink_to(Path("kept").absolute())
    assert cli("bid", "reveal", bid_id).code == 2


def test_bond_is_held_and_given_back(cli: Cli) -> None:
    ready(cli, real=True)
    bid_id = commit(cli)
    balance = cli.document("wallet", "balance", "alice")
    assert (balance["ct"], balance["bonds"]["ct"]) == (999, 1)
    cli.advance(2)
    cli.ok("bid", "reveal", bid_id)
    balance = cli.document("wallet", "balance", "alice")
    # The escrow and the bond of the job are held now, and that of the bid is not.
    assert (balance["ct"], balance["bonds"]["ct"], balance["escrow"]["ct"]) == (994, 1, 5)


def test_reveal_too_early_says_how_many_blocks(cli: Cli) -> None:
    ready(cli)
    bid_id = commit(cli)
    for blocks in (2, 1):
        done = cli("bid", "reveal", bid_id, "--json")
        assert refused(done) == (10, "pending", "too_early")
        assert (done.error["blocks"], done.error["retryable"]) == (blocks, True)
        cli.advance(1)
    assert bid(cli, bid_id)["state"] == "committed"
    cli.ok("bid", "reveal", bid_id)


def test_reveal_is_not_written_for_others_before_its_time(cli: Cli) -> None:
    ready(cli)
    bid_id = commit(cli)
    assert refused(cli("bid", "reveal", bid_id, "--to", "open", "--json"))[2] == "too_early"
    assert not Path("open").exists()
    cli.advance(2)
    assert cli("bid", "reveal", bid_id, "--to", "open", "-n").code == 0
    assert not Path("open").exists()
    written = cli.ok("bid", "reveal", bid_id, "--to", "-")
    cli.advance(WINDOW)
    assert refused(cli("bid", "reveal", bid_id, "--to", "open", "--json"))[2] == "expired"
    cli.ok("tick", due="1 bid expired")
    assert refused(cli("bid", "import-reveal", "-", "--json", stdin=written))[2] == "expired"
    assert cli.document("compute", "list") == []


def test_reveal_too_late_burns_the_bond(cli: Cli) -> None:
    ready(cli, real=True)
    bid_id = commit(cli)
    cli.advance(WINDOW)
    assert not bid(cli, bid_id)["overdue"]
    cli.advance(1)
    assert bid(cli, bid_id)["overdue"]
    done = cli("bid", "reveal", bid_id)
    first, second = done.err.splitlines()
    assert first == "1 bid expired, 1 CT of bonds burned"
    assert second.startswith(f"error[refused]: bid {bid_id} could be revealed until height ")
    assert done.code == 5
    assert bid(cli, bid_id)["state"] == "expired"
    assert cli.document("wallet", "balance", "alice")["bonds"]["ct"] == 0
    assert cli.wallet("alice")[0] == 999
    assert cli.document("log", "--json", "--event", "bid_expired")[0]["detail"]["burned_ct"] == 1


def test_last_block_of_the_window_is_in_time(cli: Cli) -> None:
    ready(cli)
    bid_id = commit(cli)
    cli.advance(WINDOW)
    cli.ok("bid", "reveal", bid_id)


def test_second_reveal_returns_the_job(cli: Cli) -> None:
    ready(cli)
    bid_id = commit(cli)
    cli.advance(2)
    first = cli.document("bid", "reveal", bid_id)
    before = cli.files()
    again = cli.document("bid", "reveal", bid_id)
    assert again == first | {"changed": False}
    cli.advance(WINDOW)
    assert (
        cli.ok("bid", "reveal", bid_id) == f"bid {bid_id} was revealed, unchanged: job j1 active\n"
    )
    assert before.keys() == cli.files().keys()


def test_bids_are_revealed_together_each_with_its_outcome(cli: Cli) -> None:
    ready(cli, real=True)
    early = [commit(cli, f"j{number}", consumer_bond=bond) for number, bond in enumerate((1, 2000))]
    cli.advance(1)
    late = commit(cli, "j2")
    cli.advance(1)
    given = "\n".join(("# sealed today", *early, late, "b-none", early[0]))
    done = cli("bid", "reveal", "-", "--failed-to", "left", stdin=given)
    assert done.code == 7
    first, second, third, fourth = done.out.splitlines()
    assert first == f"revealed bid {early[0]}: job j0 active"
    assert second.startswith(f"bid {early[1]} is revealed, and its job was refused: ")
    assert third.startswith(f"bid {late} may be revealed from height ")
    assert fourth == "there is no bid b-none"
    assert done.err.startswith("3 of 4 failed: ")
    assert Path("left").read_text().split() == [early[1], late, "b-none"]
    assert [bid(cli, each)["state"] for each in (*early, late)] == [
        *("revealed", "revealed", "committed"),
    ]
    cli.ok("wallet", "deposit", "alice", "--ct", "2000")
    cli.advance(2)
    assert cli("bid", "reveal", "-", "--jsonl", stdin=Path("left").read_text()).code == 7
    rows = cli("bid", "reveal", early[1], late, "--jsonl").jsonl
    assert [(row["bid_id"], row["job"]["state"], row["changed"]) for row in rows] == [
        (early[1], "active", False),
        (late, "active", False),
    ]


def test_bids_that_are_revealed_as_one_are_all_revealed_or_none(cli: Cli) -> None:
    ready(cli, real=True)
    both = [commit(cli, f"j{number}", consumer_bond=bond) for number, bond in enumerate((1, 2000))]
    cli.advance(2)
    done = cli("bid", "reveal", *both, "--atomic")
    assert (done.code, bid(cli, both[0])["state"]) == (7, "committed"), done
    assert cli.document("compute", "list") == []
    for words in ((*both, "--to", "open"), (both[0], "--to", "open", "--atomic")):
        assert cli("bid", "reveal", *words).code == 2
    assert not Path("open").exists()


def test_refused_job_is_told_and_may_be_tried_again(cli: Cli) -> None:
    ready(cli, real=True)
    bid_id = commit(cli, consumer_bond=2000)
    cli.advance(2)
    done = cli("bid", "reveal", bid_id, "--json")
    assert refused(done) == (5, "refused", "insufficient_funds")
    found = bid(cli, bid_id)
    assert (found["state"], found["refused"], found["job_id"]) == (
        "revealed",
        "insufficient_funds",
        None,
    )
    assert cli.wallet("alice")[0] == 1000
    cli.ok("wallet", "deposit", "alice", "--ct", "2000")
    cli.advance(WINDOW - 2)
    found = cli.document("bid", "reveal", bid_id)
    assert (found["job_id"], found["refused"], found["job"]["state"]) == ("j1", None, "active")


def test_job_id_that_is_taken_is_a_refusal(cli: Cli) -> None:
    ready(cli)
    bid_id = commit(cli)
    cli.submit("j1", buyer="other")
    cli.advance(2)
    done = cli("bid", "reveal", bid_id, "--json")
    assert refused(done) == (5, "refused", "conflict")
    assert "seal a new bid" in done.error["hint"]
    assert bid(cli, bid_id)["refused"] == "conflict"


def test_job_without_an_offer_waits(cli: Cli) -> None:
    ready(cli)
    bid_id = commit(cli, capability={"gpu": "H100"})
    cli.advance(2)
    assert cli.ok("bid", "reveal", bid_id) == f"revealed bid {bid_id}: job j1 pending\n"


def test_lost_secret_says_what_it_costs(cli: Cli) -> None:
    ready(cli, real=True)
    bid_id = commit(cli)
    until = bid(cli, bid_id)["reveal_until"]
    secret(cli, bid_id).unlink()
    done = cli("bid", "reveal", bid_id, "--json")
    assert refused(done)[:2] == (3, "not_found")
    said = done.error["message"]
    assert bid_id in said
    assert f"after height {until}, which costs alice its bond of 1 CT" in said
    cli.advance(WINDOW + 1)
    done = cli("bid", "reveal", bid_id, "--json")
    assert refused(done) == (5, "refused", "expired")
    assert "its bond of 1 CT is forfeit" in done.error["message"]
    cli.ok("tick", due="1 bid expired, 1 CT of bonds burned")
    done = cli("bid", "reveal", bid_id, "--json")
    assert refused(done) == (5, "refused", "expired")
    assert "its bond of 1 CT is burned" in done.error["message"]


def test_secret_of_a_revealed_bid_is_not_needed_any_more(cli: Cli) -> None:
    ready(cli)
    bid_id = commit(cli)
    cli.advance(2)
    first = cli.document("bid", "reveal", bid_id)
    cli.advance(WINDOW)
    # Who has seen it can be shown it again, for ever.
    assert cli("bid", "reveal", bid_id, "--to", "open").code == 0
    secret(cli, bid_id).unlink()
    assert cli.document("bid", "reveal", bid_id) == first | {"changed": False}
    done = cli("bid", "reveal", bid_id, "--to", "again", "--json")
    assert refused(done)[:2] == (3, "not_found")
    assert "was revealed as job j1" in done.error["message"]


def test_secret_under_the_name_of_another_bid_reveals_neither(cli: Cli) -> None:
    ready(cli)
    first, second = commit(cli, "j1"), commit(cli, "j2")
    cli.advance(2)
    secret(cli, second).replace(secret(cli, first))
    for more in ((), ("--to", "open")):
        done = cli("bid", "reveal", first, "--json", *more)
        assert refused(done) == (9, "integrity", "bad_commitment")
    assert second in done.error["message"]
    assert {each["state"] for each in cli.document("bid", "list")} == {"committed"}


def test_number_that_another_commit_has_taken_meanwhile_is_not_used_again(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(cli)
    commit(cli, "j2")
    found, looked = bids.next_terms, []

    def seen_before(txn: Txn, public_key: bytes, key_id: bytes, sequence: int | None) -> Terms:
        """What it was before the other bid was committed to, when it is looked at first."""
        looked.append(sequence)
        terms = found(txn, public_key, key_id, sequence)
        return replace(terms, sequence=1) if len(looked) == 1 else terms

    monkeypatch.setattr(bids, "next_terms", seen_before)
    commit(cli, "j1")
    assert len(looked) == 2
    assert sorted(each["sequence"] for each in cli.document("bid", "list")) == [1, 2]
    assert {path.stem for path in (cli.home / "bids").iterdir()} == {
        each["bid_id"] for each in cli.document("bid", "list")
    }


def test_last_sequence_number_is_the_last(cli: Cli) -> None:
    ready(cli)
    commit(cli, "j1", "--sequence", str(2**63 - 1))
    done = cli("bid", "commit", job_file(cli, "j2"), "--bidder", "alice", "--json")
    assert refused(done) == (6, "conflict", "sequence_used_up")


def test_tick_lets_all_bids_expire(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compute_market.housekeeping.BIDS_LIMIT", 1)
    ready(cli)
    for number in range(3):
        commit(cli, f"j{number}")
    cli.advance(WINDOW + 1)
    cli("tick")
    assert {each["state"] for each in cli.document("bid", "list")} == {"expired"}


def test_reveal_for_others_that_cannot_be_written_fails(cli: Cli) -> None:
    ready(cli)
    bid_id = commit(cli)
    cli.advance(2)
    done = run(cli, ("bid", "reveal", bid_id, "--to", "-"), "stdout", "full")
    assert done.code == 8
    # The work of one that submits the job counts, told or not.
    assert run(cli, ("bid", "reveal", bid_id), "stdout", "full").code == 0


def test_bond_that_cannot_be_paid_leaves_no_secret(cli: Cli) -> None:
    ready(cli, real=True)
    path = job_file(cli, buyer="poor")
    done = cli("bid", "commit", path, "--bidder", "alice", "--owner", "poor", "--json")
    assert refused(done) == (5, "refused", "insufficient_funds")
    assert list((cli.home / "bids").glob("*")) == []


def test_commit_that_is_not_committed_leaves_no_secret(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(cli)
    path = job_file(cli)
    with monkeypatch.context() as patched:
        patched.setattr("compute_market.store.txn.Txn.flush", _full)
        assert cli("bid", "commit", path, "--bidder", "alice").code == 8
    assert list((cli.home / "bids").glob("*")) == []
    # Whatever fails after the commit, the secret is there.
    with monkeypatch.context() as patched:
        patched.setattr("tb_cli.frame.session.Session.follow_log", _full)
        assert cli("bid", "commit", path, "--bidder", "alice").code == 8
    (document,) = cli.document("bid", "list")
    assert secret(cli, document["bid_id"]).exists()


def _full(*_: object) -> None:
    from compute_market.errors import BusyError

    raise BusyError("the disk is full")


def test_dry_run_keeps_no_secret(cli: Cli) -> None:
    ready(cli)
    path = job_file(cli)
    before = cli.files()
    assert cli.ok("bid", "commit", path, "--bidder", "alice", "-n").startswith("dry_run: committed")
    assert cli.files() == before
    bid_id = commit(cli)
    cli.advance(2)
    before = cli.files()
    said = cli.ok("bid", "reveal", bid_id, "-n")
    assert said == f"dry_run: revealed bid {bid_id}: job j1 active\n"
    assert cli.files() == before


def test_sequence_is_used_once(cli: Cli) -> None:
    ready(cli)
    commit(cli, "j1", "--sequence", "5")
    path = job_file(cli, "j2")
    for sequence in ("5", "4"):
        done = cli("bid", "commit", path, "--bidder", "alice", "--sequence", sequence, "--json")
        assert refused(done) == (6, "conflict", "sequence_reused")
    commit(cli, "j2")
    assert sorted(each["sequence"] for each in cli.document("bid", "list")) == [5, 6]


def test_bid_of_another_market_is_refused(cli: Cli) -> None:
    ready(cli)
    bid_id = commit(cli)
    exported = cli.ok("bid", "export", bid_id)
    other = cli.directory / "other"
    cli.ok("state", "init", "--home", other)
    words = ("--home", other, "--json")
    done = cli("bid", "import", "-", "--owner", "alice", *words, stdin=exported)
    assert refused(done) == (5, "refused", "foreign_market")
    cli.advance(2)
    opened = cli.ok("bid", "reveal", bid_id, "--to", "-")
    done = cli("bid", "import-reveal", "-", *words, stdin=opened)
    assert refused(done) == (5, "refused", "foreign_market")


def test_owner_is_who_the_key_belongs_to_here(cli: Cli) -> None:
    ready(cli)
    exported = cli.ok("bid", "export", commit(cli))
    (cli.home / "keys" / "alice.key").rename(cli.home / "keys" / "bob.key")
    done = cli("bid", "import", "-", "--json", stdin=exported)
    assert refused(done)[:2] == (6, "conflict")
    (cli.home / "keys" / "bob.key").unlink()
    done = cli("bid", "import", "-", "--json", stdin=exported)
    assert refused(done)[:2] == (2, "usage")
    assert "--owner" in done.error["hint"]


def test_list_selects(cli: Cli) -> None:
    ready(cli)
    first, second = commit(cli, "j1"), commit(cli, "j2", "--owner", "bob", buyer="bob")
    cli.advance(2)
    cli.ok("bid", "reveal", first)

    def listed(*words: str) -> set[str]:
        return {each["bid_id"] for each in cli.document("bid", "list", *words)}

    assert listed() == {first, second}
    assert listed("--state", "committed") == {second}
    assert listed("--state", "committed", "--state", "revealed") == {first, second}
    assert listed("--owner", "alice") == {first}
    assert len(listed("--limit", "1")) == 1
    assert [row[1] for row in Done(0, cli.ok("bid", "list", "--owner", "bob"), "").rows] == [
        "committed"
    ]
    assert cli("bid", "list", "--state", "open").code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--market", "00" * 16), "--height"),
        (("--height", "5"), "--market"),
        (("--market", "xy", "--height", "5", "--sequence", "1"), "32 lower-case hex digits"),
        (("--bidder", "nobody"), "no key nobody"),
        (("--owner", "a/b"), "--owner"),
    ],
)
def test_commit_of_nonsense_makes_nothing(cli: Cli, words: tuple[str, ...], said: str) -> None:
    ready(cli)
    more = () if "--bidder" in words else ("--bidder", "alice")
    done = cli("bid", "commit", job_file(cli), *more, *words)
    assert done.code in (2, 3)
    assert said in done.err
    assert not (cli.home / "bids").exists()
    assert cli.document("bid", "list") == []


def test_file_that_is_no_bid_is_refused(cli: Cli) -> None:
    ready(cli)
    bid_id = commit(cli)
    exported = cli.ok("bid", "export", bid_id)
    cli.advance(2)
    opened = cli.ok("bid", "reveal", bid_id, "--to", "-")
    before = cli.files()
    for verb, right, wrong in (("import", exported, opened), ("import-reveal", opened, exported)):
        head = right[: right.index(",")]
        for text in (
            *(
                "",
                "{}",
                "\n",
                wrong,
                right.rstrip("\n"),
                right + right,
                right.replace("\n", "\r\n"),
            ),
            *(right.replace(",", ", ", 1), right.replace(head, f"{head},{head[1:]}")),
            *(
                right.upper(),
                " " + right,
                "[" * 10_000,
                "\0" * 100,
                right.replace('"version":1', '"version":2'),
            ),
        ):
            done = cli("bid", verb, "-", "--json", stdin=text)
            assert refused(done) == (9, "integrity", "malformed"), text[:100]
        with open("huge", "wb") as file:
            file.truncate(2 * 2**30)
        assert cli("bid", verb, "huge").code in (2, 9)
    assert cli.files() == before
    os.unlink("huge")


def sealed_away(cli: Cli, **fields: Any) -> str:
    """A bid of mallory's home that was taken in here in mallory's name, and its reveal `open`."""
    away = cli.directory / "away"
    add_key(away, "mallory", bytes(32))
    chain = cli.document("chain", "status")
    words = ("--market", chain["market_id"], "--height", str(chain["height"]), "--sequence", "1")
    job = job_file(cli, **fields)
    sealed = cli.document("bid", "commit", job, "--bidder", "mallory", *words, "--home", away)
    bid_id: str = sealed["bid_id"]
    exported = cli.ok("bid", "export", bid_id, "--home", away)
    cli.ok("bid", "import", "-", "--owner", "mallory", stdin=exported)
    assert cli("bid", "reveal", bid_id, "--to", "open", "--home", away).code == 0
    cli.advance(2)
    return bid_id


def test_bid_spends_the_money_of_its_owner_alone(cli: Cli) -> None:
    ready(cli, real=True)
    cli.ok("wallet", "deposit", "mallory", "--ct", "1")
    bid_id = sealed_away(cli, buyer="alice")
    done = cli("bid", "import-reveal", "open", "--json")
    assert refused(done) == (5, "refused", "buyer_mismatch")
    found = bid(cli, bid_id)
    assert (found["state"], found["refused"]) == ("revealed", "buyer_mismatch")
    assert (cli.wallet("alice")[0], cli.wallet("mallory")[0]) == (1000, 1)
    assert cli.document("compute", "list") == []


def test_commit_names_the_owner_that_it_needs(cli: Cli) -> None:
    ready(cli)
    done = cli("bid", "commit", job_file(cli, buyer="bob"), "--bidder", "alice", "--json")
    assert refused(done) == (5, "refused", "buyer_mismatch")
    assert "`--owner bob`" in done.error["hint"]
    assert not (cli.home / "bids").exists()


@pytest.mark.parametrize(
    ("setting", "reason"), [("slice_root", "outside_slice_root"), ("", "unknown_workload")]
)
def test_what_this_home_does_not_take_is_a_refusal_and_the_bond_is_given_back(
    cli: Cli, setting: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(cli, real=True)
    cli.ok("wallet", "deposit", "mallory", "--ct", "50")
    bid_id = sealed_away(cli, buyer="mallory")
    if setting:
        (cli.directory / "root").mkdir()
        monkeypatch.setenv("TB_SLICE_ROOT", str(cli.directory / "root"))
    else:
        monkeypatch.setattr("compute_market.workloads.workloads.BUILT_IN", {})
    done = cli("bid", "import-reveal", "open", "--json")
    assert refused(done) == (5, "refused", reason)
    found = bid(cli, bid_id)
    assert (found["state"], found["refused"]) == ("revealed", reason)
    assert cli.wallet("mallory")[0] == 50


def test_reveal_of_no_job_is_malformed_and_the_bond_is_given_back(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(cli, real=True)
    cli.ok("wallet", "deposit", "mallory", "--ct", "5")
    with monkeypatch.context() as patched:
        patched.setattr("compute_market.bids.sealed_jobs.state_of", lambda *_: b"no job")
        bid_id = sealed_away(cli, buyer="mallory")
    done = cli("bid", "import-reveal", "open", "--json")
    assert refused(done) == (9, "integrity", "malformed")
    found = bid(cli, bid_id)
    assert (found["state"], found["refused"], cli.wallet("mallory")[0]) == (
        "revealed",
        "malformed",
        5,
    )


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", "/".join(["x" * 200] * 25)])
def test_path_that_nobody_could_take_is_not_sealed(cli: Cli, name: str) -> None:
    ready(cli)
    done = cli("bid", "commit", job_file(cli, slices=[name]), "--bidder", "alice", "--json")
    assert refused(done)[:2] == (2, "usage")
    assert not (cli.home / "bids").exists()


def test_file_of_another_format_is_told_by_its_name(cli: Cli) -> None:
    ready(cli)
    bid_id = commit(cli)
    sealed = cli.ok("bid", "export", bid_id)
    cli.advance(2)
    opened = cli.ok("bid", "reveal", bid_id, "--to", "-")
    receipts = cli.ok("compute-market", "receipts", "export", "--key", "alice")
    verbs = {
        "tb-bid": (("bid", "import"), sealed),
        "tb-bid-reveal": (("bid", "import-reveal"), opened),
        "tb-receipts": (("compute-market", "receipts", "verify"), receipts),
    }
    for wanted, (verb, _) in verbs.items():
        for given, (_, text) in verbs.items():
            if given != wanted:
                done = cli(*verb, "-", "--json", stdin=text)
                assert refused(done) == (9, "integrity", "malformed")
                said = f"is a file of format {given}, version 1; {wanted}, version 1, is asked for"
                assert said in done.error["message"]


@pytest.mark.parametrize("field", ["version", "height", "sequence"])
@pytest.mark.parametrize("digits", [20, 400, 4_300, 10_000])
def test_number_of_any_length_is_malformed(cli: Cli, field: str, digits: int) -> None:
    ready(cli)
    fields = json.loads(cli.ok("bid", "export", commit(cli)))
    text = json.dumps(fields | {field: "HERE"}).replace('"HERE"', "9" * digits)
    done = cli("bid", "import", "-", "--json", stdin=text)
    assert refused(done) == (9, "integrity", "malformed")
    assert len(done.error["message"]) < 200


def test_own_key_with_a_public_name_reveals_and_bears_the_bond(cli: Cli) -> None:
    ready(cli)
    key_id = cli.document("key", "show", "alice")["key_id"]
    public = cli.home / "keys" / "aa.pub"
    public.touch(0o600)
    public.write_text(cli.ok("key", "show", "alice", "--public"))
    found = cli.document("bid", "commit", job_file(cli), "--bidder", key_id)
    assert found["owner"] == "alice"
    exported = cli.ok("bid", "export", found["bid_id"])
    assert not cli.document("bid", "import", "-", stdin=exported)["changed"]
    (cli.home / "keys" / "ab.pub").write_text("junk")
    cli.advance(2)
    assert cli("bid", "reveal", found["bid_id"]).code == 0
