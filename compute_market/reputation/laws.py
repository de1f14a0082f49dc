"""What the audit checks of scores."""

from collections.abc import Iterator

from compute_market.laws import Law, Violation, same_size
from compute_market.reputation import due, reputation
from compute_market.store.schema import (
    META,
    REPUTATION,
    SCORE_TERMS,
    SCORES_DUE,
    SCORES_DUE_FROM,
    SCORES_RECENT,
    unpack_u64,
)
from compute_market.store.txn import Txn

_IS_DUE = "what time changes of a score falls due"


def _scores(txn: Txn) -> Iterator[Violation]:
    for provider, score in reputation.entries(txn):
        if txn.get(SCORES_RECENT, reputation.recent_key(provider, score)) is None:
            yield Violation(
                "scores_recent", provider, "every score is found by its last change", "missing"
            )
        if any(reputation.clamp(each) != each for each in (score.score, score.seed)):
            detail = f"score {score.score}, seed {score.seed}"
            yield Violation("reputation", provider, "scores have their bounds", detail)
    yield from same_size(
        txn, SCORES_RECENT, txn.size(REPUTATION), "every score is found by its last change"
    )


def _fading(txn: Txn) -> Iterator[Violation]:
    terms = txn.number(SCORE_TERMS)
    to_fall = 0
    for provider, score in reputation.entries(txn):
        zero_ms = due.zero_ms(score, terms)
        has_faded = zero_ms is not None and zero_ms <= txn.now_ms
        if score.barred != (score.score < 0) and (score.barred or not has_faded):
            yield Violation(
                "reputation", provider, "below zero is bad standing", f"score {score.score}"
            )
        key = due.key_of(provider, score, terms)
        to_fall += key is not None
        if key is not None and txn.get(SCORES_DUE, key) is None:
            yield Violation("scores_due", provider, _IS_DUE, "missing")
    yield from same_size(txn, SCORES_DUE, to_fall, _IS_DUE)
    first = txn.first(SCORES_DUE)
    if first is not None and unpack_u64(first[0][:8]) < txn.number(SCORES_DUE_FROM):
        detail = f"{txn.number(SCORES_DUE_FROM)}, the first is due at {unpack_u64(first[0][:8])}"
        yield Violation("meta", SCORES_DUE_FROM, _IS_DUE, detail)


LAWS = (
    Law(_scores, (REPUTATION, SCORES_RECENT)),
    Law(_fading, (REPUTATION, SCORES_DUE, META)),
)
