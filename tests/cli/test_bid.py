"""Sealed bids by the command line: from one home to another, in the window, and what it costs."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from compute_market.bids import bid_files
from compute_market.signatures import keys
from tests.support.cli import RECEIPT_FIELDS, Cli, Done

pytest_plugins = ("tests.support.cli",)

WINDOW = 100
SEED = bytes(range(32))
FIELDS = [
    *("bid_id", "bidder", "state", "height", "reveal_from", "reveal_until", "sequence"),
    *("commitment", "job_id", "owner", "bond_ct", "overdue", "refused"),
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
    path = job_file(cli, "the-hidden-job", buyer="hidden-buyer", max_price_per_unit=987654)
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
    for hidden in (opening.salt, opening.state, b"the-hidden-job", b"hidden-buyer", b"987654"):
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


def test_refused_job_is_told_and_may_be_tried_again(cli: Cli) -> None:
    ready(cli, real=True)
    bid_id = commit(cli, buyer="poor", max_price_per_unit=9)
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
    cli.ok("wallet", "deposit", "poor", "--ct", "10")
    cli.advance(WINDOW)
    found = cli.document("bid", "reveal", bid_id)
    assert (found["job_id"], found["refused"], found["job"]["state"]) == ("j1", None, "active")


def test_job_id_that_is_taken_is_a_refusal(cli: Cli) -> None:
    ready(cli)
    bid_id = commit(cli)
    cli.submit("j1", buyer="other")
    cli.advance(2)
    done = cli("bid", "reveal", bid_id, "--json")
    assert refused(done) == (5, "refused", "conflict")
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


def test_bond_that_cannot_be_paid_leaves_no_secret(cli: Cli) -> None:
    ready(cli, real=True)
    done = cli("bid", "commit", job_file(cli), "--bidder", "alice", "--owner", "poor", "--json")
    assert refused(done) == (5, "refused", "insufficient_funds")
    assert list((cli.home / "bids").glob("*")) == []


def test_commit_that_is_not_committed_leaves_no_secret(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(cli)
    path = job_file(cli)
    with monkeypatch.context() as patched:
        patched.setattr("compute_market.housekeeping.conclude", _full)
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
    first, second = commit(cli, "j1"), commit(cli, "j2", "--owner", "bob")
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
