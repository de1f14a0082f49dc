"""What the audit checks of scores."""

from collections.abc import Iterator

from compute_market.laws import Law, same_size
from compute_market.records import Violation
from compute_market.reputation import reputation
from compute_market.store.schema import REPUTATION, SCORES_RECENT
from compute_market.store.txn import Txn


def _scores(txn: Txn) -> Iterator[Violation]:
    for provider, score in reputation.entries(txn):
        if txn.get(SCORES_RECENT, reputation.recent_key(provider, score)) is None:
            yield Violation(
                "scores_recent", provider, "every score is found by its last change", "missing"
            )
        if score.barred != (score.score < 0):
            yield Violation(
                "reputation", provider, "below zero is bad standing", f"score {score.score}"
            )
    yield from same_size(
        txn, SCORES_RECENT, txn.size(REPUTATION), "every score is found by its last change"
    )


LAWS = (Law(_scores, (REPUTATION, SCORES_RECENT)),)
