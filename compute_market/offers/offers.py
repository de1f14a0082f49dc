"""Offers of capacity. The only writer of offers; keeps their index in step (`book`)."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from compute_market.amounts import PPM, format_ppm, half_up, parse_ppm
from compute_market.config.settings import Config
from compute_market.errors import ConflictError, NotFoundError, RefusedError
from compute_market.offers import book
from compute_market.records import Capability, Offer, OfferState, replace
from compute_market.reputation import reputation
from compute_market.requests import OfferRequest
from compute_market.store.schema import decode
from compute_market.store.store import Txn


def get(txn: Txn, offer_id: str) -> Offer:
    """The offer. Raises NotFoundError."""
    offer = find(txn, offer_id)
    if offer is None:
        raise NotFoundError(
            f"offer {offer_id} does not exist", hint="see `tb-cli compute offer list`"
        )
    return offer


def find(txn: Txn, offer_id: str) -> Offer | None:
    offer: Offer | None = txn.read("offers", offer_id.encode())
    return offer


def listed(txn: Txn) -> Iterator[Offer]:
    """All offers, by id."""
    return txn.records("offers")


def page(txn: Txn, after: bytes, limit: int) -> tuple[list[Offer], bytes | None]:
    """At most `limit` offers by id from after the key `after` on, and the last key.

    The key is None when the table ends.
    """
    entries = txn.collect("offers", limit, start=after + b"\0" if after else None)
    found = [decode("offers", key, value) for key, value in entries]
    return found, entries[-1][0] if len(entries) == limit else None


def post(txn: Txn, request: OfferRequest, config: Config) -> tuple[Offer, bool]:
    """Post an offer; the same request with the same id again changes nothing.

    Returns the offer and whether it is new. Raises RefusedError for terms the market does not
    take, in a fixed order, and ConflictError naming the field when the id stands for another offer.
    """
    existing = find(txn, request.offer_id) if request.offer_id is not None else None
    if existing is not None:
        _check_same(existing, request)
        return existing, False
    multiplier_ppm = _check_terms(request, config)
    # After this point the posting must succeed.
    offer = Offer(
        offer_id=request.offer_id or _unused_id(txn),
        seq=txn.next_number("offer_seq"),
        provider=request.provider,
        units=request.units,
        price_per_unit=request.price_per_unit,
        fee_pct_ct=request.fee_pct_ct,
        provider_bond=request.provider_bond,
        consumer_bond=request.consumer_bond,
        capability=request.capability.capability(),
        reputation=reputation.clamp(request.reputation),
        multiplier_ppm=multiplier_ppm,
        job_id=request.job_id,
        state="open",
        units_left=request.units,
        units_reserved=0,
        units_proven=0,
        posted_at=txn.now,
    )
    reputation.seed(txn, offer.provider, offer.reputation)
    _store(txn, None, offer)
    return offer, True


def withdraw(txn: Txn, offer_id: str) -> tuple[Offer, bool]:
    """Take an offer off the market; jobs that hold it go on. Raises NotFoundError."""
    offer = get(txn, offer_id)
    if offer.state == "withdrawn":
        return offer, False
    withdrawn = replace(offer, state="withdrawn")
    _store(txn, offer, withdrawn)
    return withdrawn, True


def reserve(txn: Txn, offer: Offer, units: int) -> None:
    """Set units aside for a job. The matcher has seen that they are there."""
    _move(
        txn, offer, units_left=offer.units_left - units, units_reserved=offer.units_reserved + units
    )


def prove(txn: Txn, offer_id: str, units: int) -> None:
    """Turn reserved units into proven ones."""
    offer = get(txn, offer_id)
    _move(
        txn,
        offer,
        units_reserved=offer.units_reserved - units,
        units_proven=offer.units_proven + units,
    )


def release(txn: Txn, offer_id: str, units: int) -> None:
    """Give back reserved units that were not proven; a withdrawn offer does not sell them again."""
    if units:
        offer = get(txn, offer_id)
        _move(
            txn,
            offer,
            units_left=offer.units_left + units,
            units_reserved=offer.units_reserved - units,
        )


def record_outcome(txn: Txn, provider: str, delta: int) -> None:
    """Adjust a provider's score; a change that does not cross zero touches no offer.

    One that does moves the provider's offers to the shelf of its new standing.
    """
    before, after = reputation.adjust(txn, provider, delta)
    if (before < 0) == (after < 0):
        return
    for _, offer_id in list(book.of_provider(txn, provider)):
        offer = get(txn, offer_id.decode())
        book.remove(txn, offer, book.place_of(offer, _shelf(offer, before)))
        book.insert(txn, offer, book.place_of(offer, _shelf(offer, after)))


def place(txn: Txn, offer: Offer) -> book.Place | None:
    """Where the offer stands in the index, None when it is withdrawn."""
    if offer.state == "withdrawn":
        return None
    return book.place_of(offer, _shelf(offer, reputation.score(txn, offer.provider)))


def _shelf(offer: Offer, score: int) -> bytes:
    if score < 0:
        return book.BAD_STANDING
    return book.EXHAUSTED if offer.units_left == 0 else book.OPEN


def _move(txn: Txn, offer: Offer, **units: int) -> None:
    moved = replace(offer, **units)
    if moved.state != "withdrawn":
        state: OfferState = "open" if moved.units_left else "exhausted"
        moved = replace(moved, state=state)
    _store(txn, offer, moved)


def _store(txn: Txn, before: Offer | None, after: Offer) -> None:
    old = place(txn, before) if before is not None else None
    new = place(txn, after)
    if old != new:
        if old is not None and before is not None:
            book.remove(txn, before, old)
        if new is not None:
            book.insert(txn, after, new)
    txn.write("offers", after.offer_id.encode(), after)


def _unused_id(txn: Txn) -> str:
    while True:
        offer_id = f"o-{txn.next_number('offer_id_seq')}"
        if find(txn, offer_id) is None:
            return offer_id


def _check_terms(request: OfferRequest, config: Config) -> int:
    """The refusals of chapter 1.4, in its order and words. Returns the multiplier in ppm."""
    if request.provider_bond < 1:
        raise RefusedError("provider bond too low", reason="provider_bond_too_low")
    if request.consumer_bond < 1:
        raise RefusedError("consumer bond too low", reason="consumer_bond_too_low")
    if request.units < 1:
        raise RefusedError("no units offered", reason="no_units_offered")
    if not 0 <= request.fee_pct_ct <= 100:
        raise RefusedError(
            "invalid fee_pct_ct",
            hint=f"{request.fee_pct_ct} is outside 0…100",
            reason="invalid_fee_pct_ct",
        )
    low, high = config.multiplier_min_ppm, config.multiplier_max_ppm
    multiplier_ppm = _multiplier(request.reputation_multiplier)
    if multiplier_ppm is None or not low <= multiplier_ppm <= high:
        raise RefusedError(
            "invalid reputation multiplier",
            hint=f"a decimal with at most 6 places, {format_ppm(low)}…{format_ppm(high)}",
            reason="invalid_reputation_multiplier",
        )
    if request.price_per_unit == 0:
        raise RefusedError(
            "no price data",
            hint="a price of 0 means the market price, and nothing has been priced yet",
            reason="no_price_data",
        )
    return multiplier_ppm


def _multiplier(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    plain = isinstance(value, Decimal) and abs(value.adjusted()) < 20  # 1e999999999 is too long.
    text = format(value, "f") if plain else str(value)
    return parse_ppm(text)


def _check_same(existing: Offer, request: OfferRequest) -> None:
    asked: dict[str, Any] = {
        "provider": request.provider,
        "units": request.units,
        "price_per_unit": request.price_per_unit,
        "fee_pct_ct": request.fee_pct_ct,
        "provider_bond": request.provider_bond,
        "consumer_bond": request.consumer_bond,
        "capability": request.capability.capability(),
        "reputation": reputation.clamp(request.reputation),
        "multiplier_ppm": _multiplier(request.reputation_multiplier),
        "job_id": request.job_id,
    }
    for field, now in asked.items():
        before = getattr(existing, field)
        if before != now:
            raise ConflictError(
                f"offer {existing.offer_id} exists with {field} {_shown(before)}, "
                f"not {_shown(now)}",
                hint="use another --offer-id",
                field=field,
            )


def _shown(value: Any) -> str:
    if isinstance(value, Capability):
        return str(capability_document(value))
    return str(value)


def capability_document(capability: Capability) -> dict[str, Any]:
    """The JSON form of a capability: only what is set."""
    return {
        name: value for name in Capability.__struct_fields__ if (value := getattr(capability, name))
    }


def effective_price(price_per_unit: int, multiplier_ppm: int, accelerator: bool = False) -> int:
    """Price × multiplier, × 6/5 when the job asks for an accelerator, rounded half up.

    For display only: the matcher compares exact products.
    """
    premium = 6 if accelerator else 5
    return half_up(price_per_unit * multiplier_ppm * premium, 5 * PPM)


def document(offer: Offer) -> dict[str, Any]:
    """The JSON form of an offer."""
    return {
        "offer_id": offer.offer_id,
        "provider": offer.provider,
        "units": offer.units,
        "price_per_unit": offer.price_per_unit,
        "fee_pct_ct": offer.fee_pct_ct,
        "provider_bond": offer.provider_bond,
        "consumer_bond": offer.consumer_bond,
        "capability": capability_document(offer.capability),
        "reputation": offer.reputation,
        "reputation_multiplier": format_ppm(offer.multiplier_ppm),
        "job_id": offer.job_id,
        "state": offer.state,
        "units_left": offer.units_left,
        "units_reserved": offer.units_reserved,
        "units_proven": offer.units_proven,
        "effective_price": effective_price(offer.price_per_unit, offer.multiplier_ppm),
        "posted_at": offer.posted_at,
    }
