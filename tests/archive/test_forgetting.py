"""A market that is thrown away lets go of what an archive takes, and looks at nothing twice."""

from collections import Counter
from typing import Any

import pytest

from compute_market.archive.forgetting import Forgetter
from compute_market.records import Posting
from compute_market.store import txn as transactions
from compute_market.store.schema import ARCHIVES, EVENTS, META, POSTINGS, TABLES
from compute_market.store.table import Table
from compute_market.store.txn import Txn
from tests.archive.test_archives import archive
from tests.support.laws import busy_market

# That an archive was made is known beside.
_NOT_THE_SAME: tuple[Table[Any], ...] = (ARCHIVES, EVENTS, META)


def contents(txn: Txn) -> dict[str, dict[bytes, bytes]]:
    return {t.name: dict(txn.scan(t)) for t in TABLES if t not in _NOT_THE_SAME}


def test_forgetting_leaves_what_an_archive_leaves(tmp_path: Any) -> None:
    market = busy_market(tmp_path / "market")
    market.advance(10)
    forgetter, end = Forgetter(), market.now_ms // 1000
    forgotten: list[int] = []

    def act(txn: Txn) -> dict[str, dict[bytes, bytes]]:
        # Bit by bit, as time passes, and nothing again.
        for at in (0, end // 2, end - 500, end - 11, end - 10, end, end):
            forgotten.append(forgetter.forget(txn, at))
        txn.flush()
        return contents(txn)

    before = market.view(contents)
    left = market.store.update(act, now_ms=market.now_ms, config=market.config, dry_run=True)
    assert sum(forgotten) > 2
    assert forgotten[-1] == 0
    assert market.view(contents) == before != left
    archive(market)
    assert market.view(contents) == left


def test_posting_that_stays_is_looked_at_once(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is called: a market that pays subsidies has ever more of them."""
    market = busy_market(tmp_path / "market")
    market.advance(10)
    looked_at: Counter[int] = Counter()
    page = transactions.Txn.page

    def counted(txn: Txn, table: Table[Any], *args: Any) -> Any:
        found, last = page(txn, table, *args)
        if table is POSTINGS:
            looked_at.update(posting.seq for _, posting in found)
        return found, last

    monkeypatch.setattr(transactions.Txn, "page", counted)
    forgetter, end = Forgetter(), market.now_ms // 1000
    for _ in range(3):
        market.alone(lambda txn: forgetter.forget(txn, end))
    kept = market.view(lambda txn: [POSTINGS.decode(*each) for each in txn.scan(POSTINGS)])
    assert any(isinstance(each, Posting) for each in kept)
    assert set(looked_at.values()) == {1}
