"""Verbs on scores: show, adjust. `reputation_files` has those that tell them."""

from itertools import islice
from typing import Any

from compute_market import idempotency
from compute_market.errors import NotFoundError, UsageError
from compute_market.records import EventName, check_id
from compute_market.reputation import reputation
from compute_market.store.txn import Txn
from tb_cli.frame import files
from tb_cli.frame.options import JSONL, KEY, LIMIT
from tb_cli.frame.render import Listing, emit
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, flag, option, signed, takes

_COLUMNS = ("provider", "score", "seed", "epoch", "last_change")
_EVENTS: tuple[EventName, ...] = (
    "score_changed",
    "score_adjusted",
    "score_gossiped",
    "score_restored",
    "score_barred",
)
_REASON_MAX = 200  # characters: the log keeps them, for every change
_DELTA_MAX = 2 * reputation.SCORE_MAX


@takes(
    argument("provider", "[PROVIDER]", "Only this provider.", required=False),
    flag("--history", help="What changed the score of the provider, oldest first."),
    LIMIT,
    JSONL,
)
def show(
    session: Session, provider: str | None, *, history: bool, limit: int | None, jsonl: bool
) -> None:
    """Scores as they have faded by now. The history goes back as far as the log does; --limit keeps
    its newest.
    """
    if provider is not None:
        check_id(provider, "provider")
    if history:
        _history(session, provider, limit, jsonl=jsonl)
        return

    def documents(txn: Txn) -> list[dict[str, Any]]:
        if provider is not None:
            return [reputation.document(txn, provider)]
        found = ((-reputation.present(txn, each), name) for name, each in reputation.entries(txn))
        return [reputation.document(txn, name) for _, name in islice(sorted(found), limit)]

    listing = Listing(session, _COLUMNS, jsonl=jsonl)
    for document in session.view(documents):
        listing.add(document)
    listing.end()


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
    if not reason:
        raise UsageError("--reason is empty")
    if len(reason) > _REASON_MAX:
        raise UsageError(
            f"--reason has {len(reason)} characters, at most {_REASON_MAX} are allowed"
        )
    files.check_text(reason, "the reason")
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


def _history(session: Session, provider: str | None, limit: int | None, *, jsonl: bool) -> None:
    from compute_market import events
    from tb_cli.frame.event_listing import EventListing

    if provider is None:
        raise UsageError("--history is that of one PROVIDER")
    selection = events.Selection(owner=provider, names=_EVENTS)
    listing = EventListing(session, jsonl=jsonl)
    if limit is not None:
        pages = iter([session.view(lambda txn: events.newest(txn, selection, limit))])
    else:
        pages = session.pages(lambda txn, after, size: events.page(txn, selection, after, size), 0)
    is_known = session.view(lambda txn: reputation.entry(txn, provider)) is not None
    for page in pages:
        for logged in page:
            is_known = True
            listing.add(logged)
    if not is_known:
        raise NotFoundError(
            f"provider {provider} has no score, and none of which the log knows",
            hint="see `tb-cli net reputation show`",
        )
    listing.end()
