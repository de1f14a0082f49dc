"""Falsifications: each breaks one law of a busy market by hand, and the audit must name it."""

import ast
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from blake3 import blake3
from msgspec import Struct

from compute_market import audit, chain
from compute_market.archive import archives, selection
from compute_market.archive_records import Archive
from compute_market.jobs import handovers, jobs
from compute_market.jobs.submit import post_offer
from compute_market.laws import Violation
from compute_market.offers import offers
from compute_market.records import Posting, replace
from compute_market.settlement import ledger, modes
from compute_market.store.schema import ACCOUNTS, POSTINGS, RECEIPTS, pack_u64
from compute_market.store.table import Sums, Table
from compute_market.store.txn import Txn
from tests.support.bids import seal, take
from tests.support.bundles import record, send
from tests.support.deliveries import bring
from tests.support.governance import govern
from tests.support.importing import OTHERS, file_of, import_, import_of, links, trust
from tests.support.market import Market, offer_request
from tests.support.receipt_file import KEY, receipt

DAMAGED = b"\xc1"  # the one byte that no MessagePack value begins with


class Case(NamedTuple):
    """One way to break one law, and what the violation must name."""

    law: str
    table: str
    key: str | Callable[[Txn], str]
    damage: Callable[[Txn], Any]

    def __str__(self) -> str:
        return f"{self.table}: {self.law}"


ARCHIVE_ID = bytes(archives.ID_BYTES)
# What the bundle holds that waits in it. A home of such a market needs it in its spool.
WAITING_BUNDLE = b"bundle"


def busy_market(path: Path) -> Market:
    """A market with jobs in every state and receipts of every status."""
    market = Market(path)
    market.configure(slots=4)
    for owner in ("prov", "other"):
        market.deposit(owner, ct=450)
    market.advance(1)
    market.update(lambda txn: ledger.tap(txn, "deposit", "buyer", {"CT": 9000, "IT": 9000}, "k"))
    for owner in ("prov", "other"):
        market.deposit(owner, ct=450)
    market.post(offer_id="main", fee_pct_ct=40, provider_bond=20, reputation=5)
    market.post("other", offer_id="small", units=1, price_per_unit=1)
    market.post("other", offer_id="gone", price_per_unit=9)
    market.post("other", offer_id="spare", price_per_unit=8, fee_pct_ct=70)
    unpaid = offer_request("poor", offer_id="unpaid", price_per_unit=7, provider_bond=5)
    market.update(lambda txn: post_offer(txn, unpaid, "once"))
    market.update(lambda txn: offers.withdraw(txn, "gone"))
    # Paid nothing: admitted before the mode was real.
    market.submit("free", max_price_per_unit=1)
    market.prove("free")
    # Archived, with the first deposits of both sides.
    for job_id in ("old", "older"):
        market.submit(job_id, max_price_per_unit=5)
    market.prove("old")
    market.cancel("older")
    archive(market, ["old", "older"], postings=[1, 2])
    market.update(lambda txn: modes.arm(txn, 0))
    # Ended: completed, cancelled, failed, handed over; paid at once.
    market.submit("done", lengths=(1, 1), consumer_bond=3)
    market.prove("done", 0, 1)
    market.submit("stopped", lengths=(1, 1))
    market.prove("stopped", 1)
    market.cancel("stopped")
    market.submit("dropped")
    market.cancel("dropped", by="provider")
    market.submit("late", deadline_secs=61)
    market.advance(62)
    market.submit("moved", lengths=(1, 1))
    market.prove("moved", 0)
    hand_over(market, "moved", "spare")
    market.prove("moved", 1)
    # Live: active, queued in every line, pending.
    market.submit("handed", lengths=(1, 1, 1))
    market.prove("handed", 0)
    hand_over(market, "handed", "spare")
    market.submit("run", lengths=(1, 1, 2_000_000))
    market.prove("run", 1)
    market.submit("run-low", priority="low")
    market.submit("owed", lengths=(1, 1))
    market.submit("next", priority="high")
    for priority in ("high", "normal", "low"):
        market.submit(f"wait-{priority}", priority=priority)
    market.submit("pend", wait=True, capability={"gpu": "none has it"})
    # Proposals: in force, replaced, rolled back, waiting, and none of that.
    govern(market)
    # A bid that is not revealed yet.
    take(market, seal(height=market.view(chain.height)), owner="other")
    # Bundles: one that has arrived, one that waits.
    record(market, "acknowledged", [send(market, "other")])
    send(market, "other", size=len(WAITING_BUNDLE), bundle_hash=blake3(WAITING_BUNDLE).digest())
    # Of other markets: paid, not to be paid, recorded behind that, and known already.
    trust(market, KEY)
    market.deposit("far", ct=10)
    theirs = (receipt(1, buyer="far"), receipt(2, buyer="far"), receipt(3, buyer="poor"))
    import_of(market, links(*theirs, receipt(4, buyer="far")))
    more = links(receipt(1, buyer="far"), receipt(2, job_id="x"))
    import_(market, file_of(more, market_id=OTHERS))
    bring(market)
    # Owed: with that failure the mode fell before the receipt could be paid.
    market.prove("owed", 0, 1)
    market.submit("refused", buyer="prov", lengths=(1,) * 2000)
    # Of the consumer lane: one that waits for an offer, and transactions that wait for a block.
    market.submit("hopes", wait=True, lane="consumer", capability={"gpu": "none has it"})
    for fee, sender in ((30, "ann"), (10, "ann"), (20, "joe")):
        market.send(fee, size=2, sender=sender)
    assert market.job("run").state == "active"
    assert market.violations() == []
    return market


def archive(market: Market, job_ids: list[str], postings: list[int]) -> None:
    """Let some ended jobs and postings go, as if a file had them."""
    begun = Archive("/archives/a.jsonl", market.now_ms // 1000, market.now_ms, 100, bytes(32))

    def act(txn: Txn) -> None:
        archives.begin(txn, ARCHIVE_ID, begun)
        whole = [selection.gathered(txn, job_id.encode()) for job_id in job_ids]
        old = [txn.must_read(POSTINGS, pack_u64(seq)) for seq in postings]
        assert archives.let_go(txn, ARCHIVE_ID, begun, [each for each in whole if each], old)

    market.update(act)


def hand_over(market: Market, job_id: str, offer_id: str) -> None:
    market.update(
        lambda txn: handovers.hand_over(txn, jobs.get(txn, job_id), offers.get(txn, offer_id))
    )


def found(market: Market, damage: Callable[[Txn], Any]) -> list[Violation]:
    """What the audit says of a market after damage, which is rolled back."""

    def action(txn: Txn) -> list[Violation]:
        damage(txn)
        return list(audit.check(txn))

    return rolled_back(market, action)


def rolled_back(market: Market, action: Callable[[Txn], Any]) -> Any:
    return market.store.update(action, now_ms=market.now_ms, config=market.config, dry_run=True)


def check_named(market: Market, case: Case) -> None:
    """Break a law and see that the audit names it, in one line."""
    key = case.key if isinstance(case.key, str) else market.view(case.key)
    violations = found(market, case.damage)
    assert (case.table, key, case.law) in {(v.table, v.key, v.law) for v in violations}
    for violation in violations:
        line = str(violation)
        assert "\n" not in line
        assert line.startswith(f"{violation.table} {violation.key}: {violation.law}: ")


def laws_in(module: ModuleType) -> set[str]:
    """The laws that the source of a module names in a violation."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    texts: dict[str, str] = {}
    named: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            texts |= {ast.unparse(target): node.value.value for target in node.targets}
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Violation":
            named.append(node.args[2])
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "same_size":
            named.append(node.args[3])
    return {
        texts[each.id] if isinstance(each, ast.Name) else ast.literal_eval(each) for each in named
    }


# What falsifies.


def posting_of(txn: Txn, event: str, ref: str) -> Posting:
    """The first posting of an event for a job or a key."""
    return next(p for p in txn.records(POSTINGS) if (p.event, p.ref) == (event, ref))


def posting_seq(event: str, ref: str) -> Callable[[Txn], str]:
    return lambda txn: str(posting_of(txn, event, ref).seq)


def repost(event: str, ref: str, /, **changes: Any) -> Callable[[Txn], None]:
    """Change a posting, and the balances with it, as nobody would notice who only adds up."""

    def damage(txn: Txn) -> None:
        before = posting_of(txn, event, ref)
        after = replace(before, **changes)
        txn.write(POSTINGS, pack_u64(before.seq), after)
        for posting, sign in ((before, -1), (after, 1)):
            for account, by in ((posting.debit, -1), (posting.credit, 1)):
                key = f"{posting.token}\0{account}".encode()
                txn.add(ACCOUNTS, key, sign * by * posting.amount)

    return damage


def edit(txn: Txn, table: Table[Any], key: bytes, /, **changes: Any) -> None:
    record: Struct = txn.must_read(table, key)
    txn.write(table, key, replace(record, **changes))


def set_sum(txn: Txn, sums: Sums, key: bytes, to: int) -> None:
    txn.add(sums, key, to - txn.sum(sums, key))


def key_of(txn: Txn, table: Table[Any], value: bytes) -> bytes:
    """The first key of a table with a value that ends so."""
    return next(key for key, payload in txn.scan(table) if payload.endswith(value))


def receipt_key(txn: Txn, job_id: str) -> bytes:
    return next(r.idempotency_key for r in txn.records(RECEIPTS) if r.job_id == job_id)


def receipt_hex(job_id: str) -> Callable[[Txn], str]:
    return lambda txn: receipt_key(txn, job_id).hex()
