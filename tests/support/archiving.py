"""Archives under test: what goes, piece by piece, with no file."""

from functools import partial
from typing import Any

from msgspec import json

from compute_market.archive import archives, lines, selection
from compute_market.archive_records import Archive
from compute_market.records import Posting
from compute_market.store.txn import Txn
from tests.support.market import Market


def archive(market: Market, before: int | None = None, pieces: int | None = None) -> list[Any]:
    """Archive at most so many pieces, of one job or three postings each; the lines of the file.

    The audit is clean after each of them.
    """
    end = market.now_ms // 1000 if before is None else before
    archive_id = len(market.view(lambda txn: list(archives.listed(txn)))).to_bytes(16)
    begun = Archive("/a", end, market.now_ms, 0, b"")
    market.alone(lambda txn: archives.begin(txn, archive_id, begun))
    found: list[Any] = []

    def let_go(ended: list[selection.Ended], postings: list[Posting]) -> None:
        text = lines.of_jobs(ended) + lines.of_postings(postings)
        found.extend(map(json.decode, text.splitlines()))

        def act(txn: Txn) -> Archive | None:
            known = archives.find(txn, archive_id)
            assert known is not None
            return archives.let_go(txn, archive_id, known, ended, postings)

        assert market.alone(act) is not None
        assert market.violations() == []

    after: bytes | None = None
    while pieces is None or len(found) < pieces:
        ended, after = market.view(partial(selection.ended, before=end, after=after, limit=1))
        if ended:
            let_go(ended, [])
        if after is None:
            break
    seq: int | None = 0
    while seq is not None and (pieces is None or len(found) < pieces):
        page = partial(selection.postings, before_ms=end * 1000, after=seq, limit=3)
        postings, seq = market.view(page)
        if postings:
            let_go([], postings)
    return found
