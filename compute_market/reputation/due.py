"""Scores by the instant at which time alone changes something of them. The only writer of those.

That is when a score that bars has faded to zero, and when one has been zero for so long that its
provider is forgotten. The instants follow from three settings, the terms. The market keeps those
they were made under, as one number, and makes them anew when others are in force.
"""

from functools import cache

from compute_market.records import Score
from compute_market.reputation.decay import decayed, periods_to_zero
from compute_market.store.schema import (
    SCORE_TERMS,
    SCORES_DUE,
    SCORES_DUE_FROM,
    unpack_u64,
)
from compute_market.store.txn import Txn

_NEVER_MS = 2**63


def present(txn: Txn, record: Score, points: int) -> int:
    """What is left of so many points of a stored score by now."""
    period_ms = txn.config.reputation_decay_period_secs * 1000
    passed_ms = txn.now_ms - record.changed_ms
    periods = passed_ms // period_ms if passed_ms > 0 else 0
    return decayed(points, txn.config.reputation_decay_ppm, periods)


def zero_ms(record: Score, terms: int) -> int | None:
    """From when on a score is zero if nothing changes it; None for never."""
    decay_ppm, period_secs, _ = _unpacked(terms)
    periods = periods_to_zero(abs(record.score), decay_ppm)
    return None if periods is None else record.changed_ms + periods * period_secs * 1000


def has_faded(txn: Txn, record: Score) -> bool:
    """Whether a score is zero by now, by the terms the table is made under."""
    from_ms = zero_ms(record, _terms(txn))
    return from_ms is not None and from_ms <= txn.now_ms


def is_over(txn: Txn, record: Score) -> bool:
    """Whether a score that bars nothing is zero for so long that its provider is forgotten."""
    from_ms = _due_ms(record, _terms(txn))
    return from_ms is not None and from_ms <= txn.now_ms


def key_of(provider: str, record: Score, terms: int) -> bytes | None:
    """Where a score stands among those that are due; None for one that time does not change."""
    from_ms = _due_ms(record, terms)
    return None if from_ms is None else from_ms.to_bytes(8) + provider.encode()


def enter(txn: Txn, provider: str, record: Score) -> None:
    """Let a score fall due that is not in the table."""
    terms = txn.number(SCORE_TERMS)
    if not terms:
        begin(txn)
        terms = txn.number(SCORE_TERMS)
    at_ms = _due_ms(record, terms)
    if at_ms is not None:
        txn.put(SCORES_DUE, at_ms.to_bytes(8) + provider.encode())
        if at_ms < txn.number(SCORES_DUE_FROM):
            txn.set_number(SCORES_DUE_FROM, at_ms)


def leave(txn: Txn, provider: str, record: Score) -> None:
    """Take a score out of the table, as it stands in it."""
    key = key_of(provider, record, txn.number(SCORE_TERMS))
    if key is not None:
        txn.remove(SCORES_DUE, key)


def begin(txn: Txn) -> None:
    """An empty table, under the terms in force."""
    txn.clear(SCORES_DUE)
    txn.set_number(SCORE_TERMS, txn.config.score_terms)
    txn.set_number(SCORES_DUE_FROM, _NEVER_MS)


def overdue(txn: Txn, limit: int) -> list[str]:
    """At most so many providers whose score time has changed by now, the first instant first."""
    return [
        key[8:].decode()
        for key, _ in txn.collect(SCORES_DUE, limit)
        if unpack_u64(key[:8]) <= txn.now_ms
    ]


def settle(txn: Txn) -> None:
    """Remember exactly when something is due next."""
    first = txn.first(SCORES_DUE)
    txn.set_number(SCORES_DUE_FROM, _NEVER_MS if first is None else unpack_u64(first[0][:8]))


def _due_ms(record: Score, terms: int) -> int | None:
    lasts_ms = _lasts_ms(record.score, record.barred, terms)
    return None if lasts_ms is None else record.changed_ms + lasts_ms


@cache
def _lasts_ms(score: int, is_barred: bool, terms: int) -> int | None:
    """How long after its last change time alone changes something of a score; None for never.

    Scores have a bound and settings seldom change, and so has the cache.
    """
    decay_ppm, period_secs, retention_secs = _unpacked(terms)
    periods = periods_to_zero(abs(score), decay_ppm)
    if periods is None:
        return None
    fades_ms = periods * period_secs * 1000
    return fades_ms if is_barred else fades_ms + retention_secs * 1000 + 1


def _terms(txn: Txn) -> int:
    return txn.number(SCORE_TERMS) or txn.config.score_terms


@cache
def _unpacked(terms: int) -> tuple[int, int, int]:
    """Decay in ppm, its period in seconds, retention in seconds; see `Config.score_terms`.

    Settings seldom change, so the cache stays small.
    """
    return terms >> 72, terms >> 40 & 0xFFFF_FFFF, terms & 0xFF_FFFF_FFFF
