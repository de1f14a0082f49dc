"""What is archived, what stays, and what the market still knows of it."""

from functools import partial
from random import Random
from typing import Any

import pytest

from compute_market import archived
from compute_market.archive import archives, lines, selection
from compute_market.archive_records import Archive
from compute_market.errors import AlreadyDoneError, ConflictError, NotFoundError, RefusedError
from compute_market.jobs import cancellations
from compute_market.records import LIVE_STATES, Job
from compute_market.settlement import ledger, modes, receipts, state_root
from compute_market.store.schema import (
    ARCHIVED_JOBS,
    JOBS,
    PLACEMENTS,
    POSTINGS,
    RECEIPT_CHAIN,
    RECEIPTS,
    SETTLEMENTS,
    SLICES,
    pack_u64,
)
from compute_market.store.table import Table
from compute_market.store.txn import Txn
from tests.support.archiving import archive
from tests.support.effort import effort
from tests.support.importing import import_, trust
from tests.support.laws import busy_market, hand_over
from tests.support.market import Market
from tests.support.receipt_file import KEY, exported

# What an archive takes things from.
TAKEN: tuple[Table[Any], ...] = (
    *(JOBS, SLICES, PLACEMENTS, RECEIPTS, RECEIPT_CHAIN, SETTLEMENTS, POSTINGS),
)


def entries(market: Market) -> dict[tuple[str, bytes], bytes]:
    def read(txn: Txn) -> dict[tuple[str, bytes], bytes]:
        return {(t.name, key): value for t in TAKEN for key, value in txn.scan(t)}

    return market.view(read)


def test_everything_that_may_goes_and_nothing_else(tmp_path: Any) -> None:
    market = busy_market(tmp_path / "market")
    market.advance(10)
    before = entries(market)
    root, log = market.view(state_root.root), market.view(log_of)
    ended = {job.job_id for job in all_jobs(market) if job.state not in LIVE_STATES}
    found = archive(market)
    after = entries(market)
    assert market.view(state_root.root) == root
    assert market.view(log_of) == log
    # One is owed what it has proven.
    assert {each["job"]["job_id"] for each in found if "job" in each} == ended - {"owed"}
    assert market.job("owed").state == "completed"
    assert after.items() <= before.items()
    gone = before.keys() - after.keys()
    told = {("jobs", each["job"]["job_id"].encode()) for each in found if "job" in each}
    told |= {("postings", pack_u64(each["posting"]["seq"])) for each in found if "posting" in each}
    for each in found:
        if "job" in each:
            name = each["job"]["job_id"].encode() + b"\0"
            told |= {("slices", name + pack_u64(n)) for n in range(len(each["slices"]))}
            told |= {("placements", name + pack_u64(n)) for n in range(len(each["placements"]))}
            for receipt in each["receipts"]:
                key = bytes.fromhex(receipt["idempotency_key"])
                told |= {("receipts", key), ("settlements", key)}
    links = {key for key in gone if key[0] == "receipt_chain"}
    assert gone - links == told
    assert links < {("receipt_chain", pack_u64(n)) for n in range(1, 20)}
    market.store.close()


def log_of(txn: Txn) -> bytes:
    return cancellations.text_from(txn, 0)


def all_jobs(market: Market) -> list[Job]:
    return market.view(lambda txn: list(txn.records(JOBS)))


def test_file_has_every_field_of_what_has_gone(real: Market) -> None:
    real.post(units=9, price_per_unit=4)
    real.submit(lengths=(1, 2))
    real.prove("job", 0, 1)
    job, key = real.job(), real.view(lambda txn: next(k for k, _ in txn.scan(RECEIPTS)))
    receipt = real.view(lambda txn: txn.must_read(RECEIPTS, key))
    settled = real.view(lambda txn: txn.must_read(SETTLEMENTS, key))
    real.advance(1)
    (line, *postings) = archive(real)
    assert line["job"] == lines.plain(job)
    assert [each["length"] for each in line["slices"]] == [1, 2]
    (told,) = line["receipts"]
    assert told.pop("settlement") == lines.plain(settled)
    assert len(told.pop("link")) == 64
    assert told == lines.plain(receipt)
    assert {each["posting"]["event"] for each in postings} >= {"deposit", "escrow:lock", "settle"}


@pytest.mark.parametrize("seed", range(effort(4, 200)))
def test_audit_is_clean_whatever_is_archived_when(tmp_path: Any, seed: int) -> None:
    """Random jobs that end in random ways, with archives in between, some of them cut short."""
    draw = Random(seed)
    market = Market(tmp_path / "market")
    market.configure(slots=6, settle_mode=draw.choice(("real", "dry_run")), deadline_min_secs=0)
    for owner in ("buyer", "prov", "other"):
        market.deposit(owner, ct=5000, it=5000)
    for offer_id, provider in (("a", "prov"), ("b", "other")):
        market.post(provider, offer_id=offer_id, units=999, provider_bond=3, fee_pct_ct=30)
    told: set[str] = set()
    for number in range(effort(40, 80)):
        name = f"j{draw.randrange(30)}"
        act = draw.randrange(9)

        try:
            if act < 3 and name not in told:
                market.submit(name, lengths=(1, 1), deadline_secs=draw.choice((5, 500)))
            elif act == 3:
                market.prove(name, draw.randrange(2))
            elif act == 4:
                market.prove(name, 0, 1)
            elif act == 5:
                market.cancel(name, draw.choice(("client", "provider")))
            elif act == 6:
                hand_over(market, name, draw.choice("ab"))
            elif act == 7:
                market.update(lambda txn: modes.arm(txn, 0))
            else:
                root = market.view(state_root.root)
                found = archive(market, pieces=draw.choice((None, 1, 4)))
                assert market.view(state_root.root) == root
                names = {each["job"]["job_id"] for each in found if "job" in each}
                assert not names & told, "archived twice"
                told |= names
        except (AlreadyDoneError, ConflictError, NotFoundError, RefusedError):
            pass  # Most of what is drawn at random cannot be done.
        market.advance(draw.choice((0, 1, 20)))
        assert market.violations() == [], number
    for name in told:
        with pytest.raises(ConflictError, match="its id is not used again"):
            market.submit(name)
    market.store.close()


def test_archived_job_is_known_and_its_id_is_taken(real: Market) -> None:
    real.post(units=9, price_per_unit=4)
    for job_id in ("done", "stopped", "live"):
        real.submit(job_id)
    real.prove("done")
    real.cancel("stopped")
    real.advance(1)
    archive(real)
    with pytest.raises(NotFoundError, match="was completed, and has been archived") as said:
        real.job("done")
    assert said.value.reason == "archived"
    with pytest.raises(NotFoundError, match="job never does not exist"):
        real.job("never")
    with pytest.raises(ConflictError) as refused:
        real.submit("done")
    assert refused.value.reason == "archived"
    assert real.cancel("done").outcome == "already_done"
    assert real.cancel("stopped").outcome == "already_cancelled"
    assert real.cancel("stopped").text == "job already cancelled"
    with pytest.raises(NotFoundError, match="job never does not exist"):
        real.cancel("never")
    assert real.job("live").state == "active"


def test_wallet_goes_on_from_its_opening(real: Market) -> None:
    real.post(units=9, price_per_unit=4, fee_pct_ct=50)
    real.submit("done")
    real.prove("done")
    real.submit("live")
    balance = real.balance("wallet/buyer")
    real.advance(1)
    archive(real)
    assert real.balance("wallet/buyer") == balance
    openings = real.view(lambda txn: ledger.openings(txn, "buyer"))
    kept = real.view(lambda txn: ledger.history(txn, "buyer", 0, 100))
    assert {each.ref for each in kept} == {"live"}
    assert [(each.seq, each.event, each.token) for each in openings] == [
        (0, "opening", "CT"),
        (0, "opening", "IT"),
    ]
    moved = sum(
        each.amount * (1 if each.credit == "wallet/buyer" else -1)
        for each in (*openings, *kept)
        if each.token == "CT"
    )
    assert moved == balance


def test_receipt_that_waits_keeps_its_job(real: Market) -> None:
    real.post(units=9, price_per_unit=4)
    for job_id in ("first", "owed", "last"):
        real.submit(job_id)
    real.prove("first")
    real.update(lambda txn: modes.to_dry_run(txn, "a test"))
    real.prove("owed")
    real.update(lambda txn: modes.arm(txn, 0))
    real.update(lambda txn: modes.to_dry_run(txn, "again"))
    real.advance(1)
    real.cancel("last")
    real.advance(1)
    found = archive(real)
    assert {each["job"]["job_id"] for each in found if "job" in each} >= {"first", "last"}
    assert real.violations() == []


def test_receipts_of_archived_jobs_are_not_paid_again(real: Market) -> None:
    """The market's own receipts come back: they are known, those that are kept and the others."""
    trust(real, KEY)
    real.post(units=9, price_per_unit=4)
    for job_id in ("a", "b", "c"):
        real.submit(job_id)
    real.prove("a")
    real.advance(1)
    real.prove("b")
    whole = exported(real)
    real.advance(1)
    archive(real, before=real.now_ms // 1000 - 1)
    assert len(real.view(lambda txn: receipts.page(txn, 0, 9))) == 2
    taken = import_(real, whole)
    assert taken.became["duplicate"] == 2
    assert real.violations() == []


def test_key_of_an_archived_receipt_is_taken_for_other_markets(real: Market) -> None:
    real.post(units=9, price_per_unit=4)
    real.submit("a")
    real.prove("a")
    receipt = real.view(lambda txn: next(txn.records(RECEIPTS)))
    real.advance(1)
    archive(real)
    left = real.view(lambda txn: archived.receipt(txn, receipt.idempotency_key))
    assert left is not None
    assert left.is_applied
    assert archived.is_same(left, receipt)


def test_piece_that_another_process_took_is_not_taken_again(real: Market) -> None:
    real.post(units=9, price_per_unit=4)
    real.submit("a")
    real.cancel("a")
    real.advance(1)
    (ended,) = real.view(lambda txn: selection.ended(txn, txn.now, None, 9))[0]
    begun = Archive("/a", real.now_ms // 1000, 0, 0, b"")
    for archive_id in (bytes(16), b"\1" * 16):
        real.alone(partial(archives.begin, archive_id=archive_id, archive=begun))
    first = real.alone(lambda txn: archives.let_go(txn, bytes(16), begun, [ended], []))
    again = real.alone(lambda txn: archives.let_go(txn, b"\1" * 16, begun, [ended], []))
    assert first is not None
    assert first.jobs == 1
    assert again is None
    assert real.view(lambda txn: txn.size(ARCHIVED_JOBS)) == 1


def test_young_jobs_stay(real: Market) -> None:
    real.post(units=9, price_per_unit=4)
    real.submit("a")
    real.cancel("a")
    assert archive(real) == []
    real.advance(1)
    assert archive(real, before=0) == []
    assert real.job("a").state == "cancelled"
