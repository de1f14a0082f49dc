"""Scores of providers, −1000 … 1000. The only writer of the tables of scores, but for `due`.

A score fades while nothing changes it (`decay`): that is computed when it is read, from the last
change, and never written back. A score below zero bars a provider's offers. `Score.barred` is that
standing as the index of offers knows it: whoever changes a score (`offers.standing`) moves the
offers in the same transaction.

Functions import what few commands need: all import this module. What every job needs they import
whole, since `from` takes several times as long when all is loaded.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from compute_market import events, metrics
from compute_market.errors import NotFoundError
from compute_market.records import Event, Score, replace
from compute_market.store.schema import (
    REPUTATION,
    SCORE_TERMS,
    SCORES_DUE_FROM,
    SCORES_RECENT,
    SCORES_TOLD,
)
from compute_market.store.txn import Txn

SCORE_MAX = 1000

_PAGE = 1000


def clamp(score: int) -> int:
    return max(-SCORE_MAX, min(SCORE_MAX, score))


def score(txn: Txn, provider: str) -> int:
    """The present score; 0 for a provider nobody has heard of."""
    record = entry(txn, provider)
    return 0 if record is None else present(txn, record)


def earned(txn: Txn, provider: str) -> int:
    """What successes, failures and other markets made of a score by now.

    The score without the seed, faded like it. −2000 … 2000: a score has bounds, and so has a seed.
    """
    record = entry(txn, provider)
    return 0 if record is None else present_earned(txn, record)


def present(txn: Txn, record: Score) -> int:
    """What a stored score is by now."""
    return _fading()(txn, record, record.score)


def present_earned(txn: Txn, record: Score) -> int:
    """What is earned of a stored score by now."""
    return _fading()(txn, record, record.score - record.seed)


def is_barred(txn: Txn, provider: str) -> bool:
    """Whether a provider is in bad standing."""
    record = entry(txn, provider)
    return record is not None and record.barred


def entry(txn: Txn, provider: str) -> Score | None:
    """A score as it was at its last change."""
    return txn.read(REPUTATION, provider.encode())


def seed(txn: Txn, provider: str, advertised: int) -> None:
    """Give a provider that has no score yet the first one its offer advertises.

    Its epoch is 0, as if nobody had heard of the provider: any other market's word counts more.
    """
    if entry(txn, provider) is None:
        first = clamp(advertised)
        _store(txn, provider, None, Score(first, first, 0, txn.now_ms, first < 0))


def adjust(txn: Txn, provider: str, delta: int) -> tuple[Score, Score]:
    """Add +1 for a success or −1 for a failure. Returns the records before and after.

    The caller moves the provider's offers if the standing changed; see `offers.standing`.
    """
    before, after = _moved(txn, provider, delta)
    metrics.count(txn, "reputation_adjust_total", "success" if delta > 0 else "failure")
    detail = {"delta": delta, "score": after.score}
    events.add(txn, Event("score_changed", owner=provider, detail=detail))
    return before, after


def pardon(txn: Txn, provider: str, delta: int, reason: str) -> tuple[Score, Score]:
    """Add what the operator says to a score, for a reason that the log keeps. See `adjust`."""
    before, after = _moved(txn, provider, delta)
    now = after.score
    events.note(txn, "score_adjusted", owner=provider, delta=delta, score=now, reason=reason)
    return before, after


def as_told(txn: Txn, points: int, epoch: int) -> Score | None:
    """What another market tells as a score of this one: it fades from its epoch on.

    None for one that is over: this market would have forgotten its provider by now.
    """
    from compute_market.reputation import due

    changed_ms = min(txn.now_ms, epoch * 1000)
    record = Score(points, 0, epoch, changed_ms)
    if due.is_over(txn, record):
        return None
    return replace(record, barred=points < 0 and not due.has_faded(txn, record))


def replace_by(txn: Txn, provider: str, before: Score | None, told: Score) -> None:
    """Replace a stored score, if there is one, by one of another market; see `as_told`."""
    _store(txn, provider, before, told)
    txn.set_number(SCORES_TOLD, txn.now_ms)


def restore(txn: Txn, provider: str, record: Score) -> None:
    """Store a score of a snapshot, in a market that has none of the provider."""
    _store(txn, provider, None, record)


def entries(txn: Txn) -> Iterator[tuple[str, Score]]:
    """Every provider with a score, by id."""
    for key, payload in txn.scan(REPUTATION):
        yield key.decode(), REPUTATION.decode(key, payload)


def count(txn: Txn) -> int:
    """How many providers have a score."""
    return txn.size(REPUTATION)


def page(txn: Txn, after: bytes | None, limit: int) -> tuple[list[tuple[str, Score]], bytes | None]:
    """At most so many of `entries` from behind the key `after` on, and the last key."""
    found, last = txn.page(REPUTATION, after, limit)
    return [(key.decode(), record) for key, record in found], last


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
    now = present(txn, found)
    return {
        "provider": provider,
        "score": now,
        "seed": now - present_earned(txn, found),
        "epoch": found.epoch,
        "last_change": found.changed_ms // 1000,
        "barred": found.barred,
        "barred_until": barred_until(found, txn.config.score_terms),
    }


def barred_until(record: Score, terms: int) -> int | None:
    """When a provider is in good standing again if nothing happens, in unix seconds.

    None for one that is, or whose score does not fade.
    """
    from compute_market.reputation import due

    until_ms = due.zero_ms(record, terms) if record.barred else None
    return None if until_ms is None else -(-until_ms // 1000)


# What time alone changes.


def is_due(txn: Txn) -> bool:
    """Whether time has changed something of a score, or other terms are in force."""
    # The table is asked last: what is written late would have to be written for it.
    return (
        txn.number(SCORES_DUE_FROM) <= txn.now_ms
        or txn.number(SCORE_TERMS) != txn.config.score_terms
    ) and not txn.is_empty(REPUTATION)


def take_terms(txn: Txn) -> list[str]:
    """Let scores fall due by the settings in force, if they did by others.

    Returns the providers whose score has not faded under those as it had; the caller moves their
    offers.
    """
    if txn.number(SCORE_TERMS) == txn.config.score_terms:
        return []
    from compute_market.reputation import due

    due.begin(txn)
    barred = []
    after: bytes | None = None
    while True:
        found, after = page(txn, after, _PAGE)
        for provider, record in found:
            if not record.barred and (now := present(txn, record)) < 0:
                record = replace(record, barred=True)
                txn.write(REPUTATION, provider.encode(), record)
                events.note(txn, "score_barred", owner=provider, score=now)
                barred.append(provider)
            due.enter(txn, provider, record)
        if after is None:
            return barred


def fade(txn: Txn, provider: str) -> bool:
    """Do what time has made of one score: it bars no longer, or is forgotten.

    Returns whether the standing changed; the caller moves the offers then.
    """
    import compute_market.reputation.due as due

    record = txn.must_read(REPUTATION, provider.encode())
    due.leave(txn, provider, record)
    if record.barred:
        free = replace(record, barred=False)
        txn.write(REPUTATION, provider.encode(), free)
        due.enter(txn, provider, free)
        events.note(txn, "score_restored", owner=provider, score=0)
        return True
    txn.remove(REPUTATION, provider.encode())
    txn.remove(SCORES_RECENT, recent_key(provider, record))
    return False


def recent_key(provider: str, record: Score) -> bytes:
    return record.changed_ms.to_bytes(8) + provider.encode()


def _moved(txn: Txn, provider: str, delta: int) -> tuple[Score, Score]:
    """Add to a present score; what is left of its seed stays a seed."""
    stored = entry(txn, provider)
    before = stored or Score(0, 0, 0, txn.now_ms)
    old = present(txn, before)
    now = old + delta
    if not -SCORE_MAX <= now <= SCORE_MAX:
        now = clamp(now)
    after = replace(
        before,
        score=now,
        seed=old - present_earned(txn, before) if before.seed else 0,
        epoch=max(before.epoch + 1, txn.now),
        changed_ms=txn.now_ms,
        barred=now < 0,
    )
    _store(txn, provider, stored, after)
    return before, after


@cache
def _fading() -> "Callable[[Txn, Score, int], int]":
    """Few commands need it; an import takes longer each time than what it does."""
    from compute_market.reputation.due import present

    return present


@cache
def _lists() -> "tuple[Callable[[Txn, str, Score], None], Callable[[Txn, str, Score], None]]":
    """How a score leaves the table of those that are due, and how it enters it."""
    from compute_market.reputation.due import enter, leave

    return leave, enter


def _store(txn: Txn, provider: str, before: Score | None, record: Score) -> None:
    leave, enter = _lists()
    if before is not None:
        leave(txn, provider, before)
    enter(txn, provider, record)
    txn.write(REPUTATION, provider.encode(), record)
    if before is not None:
        if before.changed_ms == record.changed_ms:
            return
        txn.delete(SCORES_RECENT, recent_key(provider, before))
    txn.put(SCORES_RECENT, recent_key(provider, record))
