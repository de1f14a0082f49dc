"""Scores of providers, −1000 … 1000. The only writer of the reputation tables.

A score below zero bars a provider's offers. `Score.barred` is that standing as the index of offers
knows it: whoever changes a score (`offers.standing`) moves the offers in the same transaction.
"""

from collections.abc import Iterator
from typing import Any

from compute_market import events, metrics
from compute_market.errors import NotFoundError
from compute_market.records import Score, replace
from compute_market.store.schema import REPUTATION, SCORES_RECENT, pack_u64
from compute_market.store.txn import Txn

SCORE_MAX = 1000


def clamp(score: int) -> int:
    return max(-SCORE_MAX, min(SCORE_MAX, score))


def score(txn: Txn, provider: str) -> int:
    """The present score; 0 for a provider nobody has heard of."""
    record = entry(txn, provider)
    return 0 if record is None else record.score


def earned(txn: Txn, provider: str) -> int:
    """The score without the part that its provider has advertised itself."""
    record = entry(txn, provider)
    return 0 if record is None else record.score - record.seed


def is_barred(txn: Txn, provider: str) -> bool:
    """Whether a provider is in bad standing."""
    record = entry(txn, provider)
    return record is not None and record.barred


def entry(txn: Txn, provider: str) -> Score | None:
    return txn.read(REPUTATION, provider.encode())


def seed(txn: Txn, provider: str, advertised: int) -> None:
    """Give a provider that has no score yet the first one its offer advertises."""
    if entry(txn, provider) is None:
        first = clamp(advertised)
        _store(txn, provider, None, Score(first, first, txn.now, txn.now_ms, first < 0))


def adjust(txn: Txn, provider: str, delta: int) -> tuple[Score, Score]:
    """Add +1 for a success or −1 for a failure. Returns the records before and after.

    The caller moves the provider's offers if the standing changed; see `offers.standing`.
    """
    stored = entry(txn, provider)
    before = stored or Score(0, 0, 0, txn.now_ms)
    now = clamp(before.score + delta)
    after = replace(
        before,
        score=now,
        epoch=max(before.epoch + 1, txn.now),
        changed_ms=txn.now_ms,
        barred=now < 0,
    )
    _store(txn, provider, stored, after)
    metrics.count(txn, "reputation_adjust_total", "success" if delta > 0 else "failure")
    events.note(txn, "score_changed", owner=provider, delta=delta, score=now)
    return before, after


def entries(txn: Txn) -> Iterator[tuple[str, Score]]:
    """Every provider with a score, by id."""
    for key, payload in txn.scan(REPUTATION):
        yield key.decode(), REPUTATION.decode(key, payload)


def recent(txn: Txn) -> Iterator[tuple[str, int]]:
    """(provider, score), the last change first."""
    for key, _ in txn.scan_back(SCORES_RECENT):
        provider = key[8:].decode()
        yield provider, score(txn, provider)


def document(txn: Txn, provider: str) -> dict[str, Any]:
    """The JSON form of a score. Raises NotFoundError for a provider without one."""
    found = entry(txn, provider)
    if found is None:
        raise NotFoundError(
            f"provider {provider} has no score",
            hint="a provider gets one with its first offer; see `tb-cli net reputation show`",
        )
    return {
        "provider": provider,
        "score": found.score,
        "seed": found.seed,
        "epoch": found.epoch,
        "last_change": found.changed_ms // 1000,
    }


def recent_key(provider: str, record: Score) -> bytes:
    return pack_u64(record.changed_ms) + provider.encode()


def _store(txn: Txn, provider: str, before: Score | None, record: Score) -> None:
    txn.write(REPUTATION, provider.encode(), record)
    if before is not None:
        if before.changed_ms == record.changed_ms:
            return
        txn.delete(SCORES_RECENT, recent_key(provider, before))
    txn.put(SCORES_RECENT, recent_key(provider, record))
