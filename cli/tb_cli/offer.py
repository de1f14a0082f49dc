"""Verbs on offers: post, list, show, withdraw."""

from itertools import chain, islice
from typing import Annotated, Any

import typer

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import UsageError
from compute_market.jobs import lifecycle
from compute_market.offers import offers
from compute_market.records import OFFER_STATES, Offer, check_id
from compute_market.requests import OfferRequest, build, parse_many
from compute_market.store.store import Txn
from tb_cli.frame import bulk, files, options
from tb_cli.frame.render import Listing, emit, fields
from tb_cli.frame.session import Session

_COLUMNS = (
    "offer_id",
    "state",
    "provider",
    "price_per_unit",
    "effective_price",
    "units_left",
    "units",
    "capability",
)
_PAGE = 1000


def post(
    ctx: typer.Context,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE|-]", help="A JSON object, or one per line.")
    ] = None,
    offer_id: Annotated[str | None, typer.Option(help="Assigned if not given.")] = None,
    provider: Annotated[str | None, typer.Option(help="Who offers.")] = None,
    units: Annotated[
        int | None, typer.Option(min=0, max=AMOUNT_MAX, help="Units it will execute, at least 1.")
    ] = None,
    price: Annotated[
        int | None, typer.Option(min=0, max=AMOUNT_MAX, help="Quoted price of one unit.")
    ] = None,
    fee_pct_ct: Annotated[
        int | None, typer.Option(min=0, max=AMOUNT_MAX, help="Percent paid in CT. [100]")
    ] = None,
    bond: Annotated[
        int | None, typer.Option(min=0, max=AMOUNT_MAX, help="CT locked per job taken. [1]")
    ] = None,
    consumer_bond: Annotated[
        int | None, typer.Option(min=0, max=AMOUNT_MAX, help="Least CT bond of the buyer. [1]")
    ] = None,
    cpu_cores: options.CpuCores = None,
    gpu: options.Gpu = None,
    gpu_count: options.GpuCount = None,
    gpu_memory_mb: options.GpuMemory = None,
    accelerator: options.Accelerator = None,
    accelerator_memory_mb: options.AcceleratorMemory = None,
    reputation: Annotated[
        int | None, typer.Option(help="Advertised first score of a new provider. [0]")
    ] = None,
    multiplier: Annotated[
        str | None, typer.Option(help="Reputation multiplier, a decimal. [1]")
    ] = None,
    job: Annotated[str | None, typer.Option(help="Only this job may take the offer.")] = None,
    chunk: options.Chunk = 1000,
    atomic: options.Atomic = False,
) -> int:
    """Post offers. Options win over the fields of a file; the same offer again changes nothing."""
    session = Session.of(ctx)
    given = {
        "offer_id": offer_id,
        "provider": provider,
        "units": units,
        "price_per_unit": price,
        "fee_pct_ct": fee_pct_ct,
        "provider_bond": bond,
        "consumer_bond": consumer_bond,
        "reputation": reputation,
        "reputation_multiplier": multiplier,
        "job_id": job,
    }
    capability = {
        "cpu_cores": cpu_cores,
        "gpu": gpu,
        "gpu_count": gpu_count,
        "gpu_memory_mb": gpu_memory_mb,
        "accelerator": accelerator,
        "accelerator_memory_mb": accelerator_memory_mb,
    }
    source = "options" if file is None else files.source_of(file)
    documents = [(source, {})] if file is None else parse_many(files.read(file), source)
    if len(documents) > 1 and offer_id is not None:
        raise UsageError(f"--offer-id names one offer, {source} holds {len(documents)}")
    requests = [
        build(_merged(document, given, capability), OfferRequest, name)
        for name, document in documents
    ]

    def act(txn: Txn, request: OfferRequest) -> bulk.Outcome:
        posted = lifecycle.post_offer(txn, session.config, request)
        document = offers.document(posted.offer) | {
            "changed": posted.changed,
            "matched": posted.matched,
        }
        name = posted.offer.offer_id
        text = f"posted offer {name}"
        if not posted.changed:
            text = f"offer {name} exists, unchanged: {posted.offer.state}"
        if posted.matched:
            text += f", taken by {' '.join(posted.matched)}"
        return bulk.Outcome(name, text, document)

    return bulk.run(
        session, requests, act, name=_name, identity="offer_id", chunk=chunk, atomic=atomic
    )


def list_(
    ctx: typer.Context,
    state: Annotated[
        list[str] | None, typer.Option(help="Only offers in this state; repeatable.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Only offers of this provider.")] = None,
    limit: options.Limit = None,
    jsonl: options.Jsonl = False,
) -> None:
    """List offers by id."""
    session = Session.of(ctx)
    options.check_choices("--state", state, OFFER_STATES)

    def page(txn: Txn, after: bytes) -> tuple[list[Offer], bytes | None]:
        found, last = offers.page(txn, after, _PAGE)
        return [
            offer
            for offer in found
            if (not state or offer.state in state) and provider in (None, offer.provider)
        ], last

    listing = Listing(session, _COLUMNS, jsonl=jsonl)
    for offer in islice(chain.from_iterable(session.pages(page, b"")), limit):
        listing.add(offers.document(offer))
    listing.end()


def show(ctx: typer.Context, offer_id: options.OfferId) -> None:
    """Show one offer."""
    session = Session.of(ctx)
    check_id(offer_id, "offer id")
    document = session.view(lambda txn: offers.document(offers.get(txn, offer_id)))
    emit(session, document, fields(document))


def withdraw(
    ctx: typer.Context,
    offer_ids: options.OfferIds,
    chunk: options.Chunk = 1000,
    atomic: options.Atomic = False,
    jsonl: options.Jsonl = False,
) -> int:
    """Take offers off the market. Jobs that hold units of them go on."""
    session = Session.of(ctx)

    def act(txn: Txn, offer_id: str) -> bulk.Outcome:
        offer, changed = offers.withdraw(txn, offer_id)
        text = f"withdrew offer {offer_id}" if changed else f"offer {offer_id} already withdrawn"
        return bulk.Outcome(offer_id, text, offers.document(offer) | {"changed": changed})

    ids = bulk.read_ids(offer_ids, "offer id")
    return bulk.run(session, ids, act, identity="offer_id", chunk=chunk, atomic=atomic, jsonl=jsonl)


def _merged(
    document: dict[str, Any], given: dict[str, Any], capability: dict[str, Any]
) -> dict[str, Any]:
    merged = document | {name: value for name, value in given.items() if value is not None}
    options.merge_capability(merged, capability)
    return merged


def _name(request: OfferRequest) -> str:
    return request.offer_id or f"offer of {request.provider}"
