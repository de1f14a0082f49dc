"""Scores of providers, −1000 … 1000. The only writer of the reputation table and its ranking."""

from collections.abc import Iterator

from compute_market import metrics
from compute_market.records import Score, replace
from compute_market.store.schema import decode
from compute_market.store.store import Txn

SCORE_MAX = 1000


def clamp(score: int) -> int:
    return max(-SCORE_MAX, min(SCORE_MAX, score))


def score(txn: Txn, provider: str) -> int:
    """The present score; 0 for a provider nobody has heard of."""
    record = entry(txn, provider)
    return 0 if record is None else record.score


def entry(txn: Txn, provider: str) -> Score | None:
    record: Score | None = txn.read("reputation", provider.encode())
    return record


def seed(txn: Txn, provider: str, advertised: int) -> None:
    """Give a provider that has no score yet the first one its offer advertises."""
    if entry(txn, provider) is None:
        first = clamp(advertised)
        _store(txn, provider, Score(first, first, txn.now, txn.now_ms))


def adjust(txn: Txn, provider: str, delta: int) -> tuple[int, int]:
    """Add +1 for a success or −1 for a failure. Returns the scores before and after."""
    before = entry(txn, provider) or Score(0, 0, 0, txn.now_ms)
    after = replace(
        before,
        score=clamp(before.score + delta),
        epoch=max(before.epoch + 1, txn.now),
        changed_ms=txn.now_ms,
    )
    _store(txn, provider, after, before.score)
    metrics.count(txn, "reputation_adjust_total", "success" if delta > 0 else "failure")
    return before.score, after.score


def ranking(txn: Txn) -> Iterator[tuple[int, str]]:
    """Providers as (score, provider), the highest score first."""
    for key, _ in txn.scan("standing"):
        yield SCORE_MAX - int.from_bytes(key[:2], "big"), key[2:].decode()


def recent(txn: Txn) -> Iterator[tuple[int, str, int]]:
    """(unix ms of the last change, provider, score) of every provider."""
    for key, value in txn.scan("reputation"):
        entry: Score = decode("reputation", key, value)
        yield entry.changed_ms, key.decode(), entry.score


def _store(txn: Txn, provider: str, record: Score, before: int | None = None) -> None:
    if before is not None and before != record.score:
        txn.delete("standing", rank_key(before, provider))
    txn.write("reputation", provider.encode(), record)
    txn.put("standing", rank_key(record.score, provider))


def rank_key(score: int, provider: str) -> bytes:
    return (SCORE_MAX - score).to_bytes(2, "big") + provider.encode()
