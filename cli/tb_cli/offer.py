"""Verbs on offers: post, show, withdraw. `offer_list` has the one that lists."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from compute_market.errors import UsageError
from compute_market.jobs.submit import post_offer
from compute_market.json_documents import NO_FILE, Document
from compute_market.offers import offers, standing
from compute_market.requests import OfferRequest, build
from compute_market.store.txn import Txn
from tb_cli.frame import bulk
from tb_cli.frame.ids import Ids
from tb_cli.frame.json_lines import JsonLines
from tb_cli.frame.options import (
    ATOMIC,
    CHUNK,
    FAILED_TO,
    JSONL,
    KEY,
    OFFER_IDS,
    OFFERED,
    PRINTED,
    amount,
    by_option,
    offer_selection,
    with_options,
    with_party,
)
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import NOT_GIVEN, argument, examples, group, option, takes

if TYPE_CHECKING:
    from tb_cli.network.takeovers import Takeovers


@takes(
    argument("file", "[FILE|-]", "JSON: an offer, one per line, or a list.", required=False),
    group(
        "given",
        option("--offer-id", "Assigned if not given."),
        option("--provider", "Who offers. [TB_PROVIDER, if set]"),
        amount("--units", "Units it will execute, at least 1."),
        amount(
            "--price", "Quoted price of one unit; 0 is the market price.", name="price_per_unit"
        ),
        amount("--fee-pct-ct", "Percent paid in CT. [100]"),
        amount("--bond", "CT locked per job taken. [1]", name="provider_bond"),
        amount("--consumer-bond", "Least CT bond of the buyer. [1]"),
    ),
    OFFERED,
    group(
        "given",
        option("--reputation", "Advertised first score of a new provider. [0]", kind="integer"),
        option(
            "--multiplier",
            "Reputation multiplier, a decimal. [1]",
            name="reputation_multiplier",
        ),
        option("--job", "Only this job may take the offer.", name="job_id"),
    ),
    KEY,
    CHUNK,
    ATOMIC,
    FAILED_TO,
    JSONL,
    PRINTED,
)
@examples(
    "tb-cli compute offer post --example",
    "tb-cli compute offer post offer.json",
)
def post(
    session: Session,
    file: str | None,
    *,
    given: dict[str, Any],
    capability: dict[str, Any],
    key: str | None,
    chunk: int | None,
    atomic: bool,
    failed_to: str | None,
    jsonl: bool,
    schema: bool,
    example: bool,
) -> int:
    """Options win over the fields of a file; the same offer again changes nothing. With the setting
    `enable_preempt` a new offer may take a running job over; see `compute preempt`.
    """
    if schema or example:
        from tb_cli.frame.schemas import tell

        tell(OfferRequest, post, schema=schema, given=file is not None)
        return 0
    takeovers = _takeovers(session) if session.config.enable_preempt else None

    def act(txn: Txn, request: OfferRequest) -> bulk.Outcome:
        posted = post_offer(txn, request, key)
        document = standing.document(txn, posted.offer) | {
            "changed": posted.changed,
            "matched": posted.matched,
            "took_over": None,
        }
        name = posted.offer.offer_id
        text = f"posted offer {name}"
        if posted.offer.market_priced:
            text += f" at {posted.offer.price_per_unit}, the market price"
        if not posted.changed:
            text = f"offer {name} exists, unchanged: {posted.offer.state}"
        if posted.matched:
            text += f", taken by {' '.join(posted.matched)}"
        outcome = bulk.Outcome(name, text, document)
        return outcome if takeovers is None else takeovers.tried(txn, posted, outcome)

    def prepare(request: OfferRequest) -> None:
        if request.price_per_unit == 0:
            from tb_cli.frame import price_board  # Few offers ask for it.

            price_board.load_once(session)

    source = None if file is None else JsonLines([file], keep=failed_to is not None)
    asked: Iterable[bulk.Given[OfferRequest]] = [_offer(NO_FILE, given, capability)]
    if source is not None:
        asked = _offers(source, given, capability, key)
    code = bulk.run(
        session,
        asked if takeovers is None else takeovers.paced(asked),
        act,
        prepare=prepare,
        then=None if takeovers is None else takeovers.follow,
        id_field="offer_id",
        chunk=chunk,
        atomic=atomic,
        jsonl=jsonl,
        failed_to=failed_to,
        source=source,
    )
    if takeovers is not None:
        takeovers.end()
    return code


@examples("tb-cli compute offer show o-1")
@takes(OFFER_IDS)
def show(session: Session, offer_ids: list[str]) -> int:
    """`problem` is what keeps it from being taken, `barred_by` until when if nothing happens. Of
    several offers each is shown; --json has a list of them then.
    """
    from compute_market.jobs import obstacles
    from tb_cli.frame import several

    return several.show(
        session,
        offer_ids,
        "offer id",
        lambda txn, offer_id: [obstacles.document(txn, offers.get(txn, offer_id))],
    )


@examples(
    "tb-cli compute offer withdraw o-1 o-2",
    "tb-cli compute offer withdraw --provider acme",
)
@takes(
    argument(
        "offer_ids",
        "[OFFER…]",
        "Offer ids; - reads them from stdin.",
        required=False,
        many=True,
        complete="offer",
    ),
    CHUNK,
    ATOMIC,
    FAILED_TO,
    JSONL,
    rarely=offer_selection,
)
def withdraw(
    session: Session,
    offer_ids: list[str],
    *,
    chunk: int | None,
    atomic: bool,
    failed_to: str | None,
    jsonl: bool,
    filters: Mapping[str, Any] = NOT_GIVEN,
    selecting: Mapping[str, Any] = NOT_GIVEN,
) -> int:
    """Jobs that hold units of them go on. Offers that options select are withdrawn in one
    transaction; on a terminal it asks first.
    """

    def act(txn: Txn, offer_id: str) -> bulk.Outcome:
        offer, changed = offers.withdraw(txn, offer_id)
        text = f"withdrew offer {offer_id}" if changed else f"offer {offer_id} already withdrawn"
        return bulk.Outcome(offer_id, text, standing.document(txn, offer) | {"changed": changed})

    how: dict[str, Any] = {
        "id_field": "offer_id",
        "chunk": chunk,
        "atomic": atomic,
        "jsonl": jsonl,
        "failed_to": failed_to,
    }
    if filters or selecting or not offer_ids:
        from tb_cli.frame import selected

        if selected.is_meant(offer_ids, filters, selecting, noun="offer"):
            from tb_cli.frame.listing.selections import selected_offers

            found = selected_offers(filters)
            return selected.run(session, found, act, doing="withdraw", selecting=selecting, **how)
    ids = Ids(offer_ids, "offer id", keep=failed_to is not None)
    return bulk.run(session, ids, act, source=ids, **how)


def _takeovers(session: Session) -> "Takeovers":
    from tb_cli.network.takeovers import Takeovers  # In most markets no offer takes a job over.

    return Takeovers(session)


def _offers(
    source: JsonLines, given: dict[str, Any], capability: dict[str, Any], key: str | None
) -> Iterator[bulk.Given[OfferRequest]]:
    for number, (_, document, place) in enumerate(source):
        if number and "offer_id" in given:
            raise UsageError("--offer-id names one offer, and more are given")
        if number and key is not None:
            raise UsageError("--key is that of one offer, and more are given")
        yield _offer(document, given, capability, place)


def _offer(
    document: Document,
    given: dict[str, Any],
    capability: dict[str, Any],
    place: bulk.Place | None = None,
) -> bulk.Given[OfferRequest]:
    """One offer as it was asked for. What is wrong with it is its own outcome."""
    try:
        if document.error is not None:
            raise document.error
        fields = with_party(with_options(document.fields, given, capability), "provider")
        request = build(fields, OfferRequest, document.source)
    except UsageError as error:
        alone = document is NO_FILE
        named = by_option(error, given, capability, post, alone=alone)
        name = given.get("offer_id", "") if alone else document.source
        return bulk.Given(name, None, named, place)
    return bulk.Given(request.offer_id or f"offer of {request.provider}", request, None, place)
