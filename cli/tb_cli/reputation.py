"""Verbs on scores: show, adjust. `reputation_files` has those that tell them."""

from collections.abc import Mapping
from typing import Any

from compute_market import idempotency
from compute_market.errors import NotFoundError, UsageError
from compute_market.records import EventName, check_id, check_reason
from compute_market.reputation import reputation
from compute_market.store.txn import Txn
from tb_cli.frame.listing import lists
from tb_cli.frame.listing import scores as listed_scores
from tb_cli.frame.listing.columns import Noun
from tb_cli.frame.listing.options import LISTED, columns_of
from tb_cli.frame.options import KEY
from tb_cli.frame.render import emit
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, flag, option, signed, takes

_EVENTS: tuple[EventName, ...] = (
    "score_changed",
    "score_adjusted",
    "score_gossiped",
    "score_restored",
    "score_barred",
)
_DELTA_MAX = 2 * reputation.SCORE_MAX


def _noun(given: Mapping[str, Any]) -> Noun:
    from tb_cli.frame.listing import events as listed_events

    return listed_events.EVENTS if given.get("history") else listed_scores.SCORE_LIST


@takes(
    argument("provider", "[PROVIDER]", "Only this provider.", required=False),
    flag("--history", help="What changed the score of the provider, oldest first."),
    LISTED,
)
@examples(
    "tb-cli net reputation show --limit 10",
    "tb-cli net reputation show --sort score",
    "tb-cli net reputation show acme --history",
)
@columns_of(_noun)
def show(session: Session, provider: str | None, *, history: bool, listing: dict[str, Any]) -> None:
    """Scores as they have faded by now. The history goes back as far as the log does; --limit keeps
    its newest.
    """
    if provider is not None:
        check_id(provider, "provider")
    if history:
        _history(session, provider, listing)
    else:
        lists.show(session, _noun({}), listing, listed_scores.reading(provider))


@examples("tb-cli net reputation adjust acme +5 --reason 'made good'")
@takes(
    argument("provider", "PROVIDER", "A provider that has a score."),
    signed("delta", "±N", "What to add to its score.", least=-_DELTA_MAX, most=_DELTA_MAX),
    option("--reason", "Why; the log keeps it.", metavar="TEXT", required=True),
    KEY,
)
def adjust(session: Session, provider: str, delta: int, *, reason: str, key: str | None) -> None:
    """A pardon, or its contrary. Its offers return, or are barred, at once."""
    from compute_market.offers import standing

    check_id(provider, "provider")
    if not delta:
        raise UsageError("±N is 0: that changes nothing")
    check_reason(reason, "--reason")
    asked = {"provider": provider, "delta": delta, "reason": reason}

    def act(txn: Txn) -> dict[str, Any]:
        done = idempotency.find(txn, key, "score_adjusted", asked)
        before = reputation.document(txn, provider)["score"]
        if done is None:
            idempotency.remember(txn, key, "score_adjusted", asked)
            standing.pardon(txn, provider, delta, reason)
        return reputation.document(txn, provider) | {"was": before, "changed": done is None}

    document = session.update(act)
    text = f"score of {provider}: {document['score']}, was {document['was']}"
    emit(session, document, text if document["changed"] else f"key {key} was used: unchanged")


def _history(session: Session, provider: str | None, listing: dict[str, Any]) -> None:
    from compute_market.events import Selection, newest
    from tb_cli.frame.listing import events as listed_events

    if provider is None:
        raise UsageError("--history is that of one PROVIDER")
    selection = Selection(owners=(provider,), names=_EVENTS)

    def is_known(txn: Txn) -> bool:
        return reputation.entry(txn, provider) is not None or bool(newest(txn, selection, 1))

    if not session.view(is_known):
        raise NotFoundError(
            f"provider {provider} has no score, and none of which the log knows",
            hint="see `tb-cli net reputation show`",
        )
    lists.show(session, _noun({"history": True}), listing, listed_events.of_log(selection))
