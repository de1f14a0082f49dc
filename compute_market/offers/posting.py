"""Posting: the terms the market takes, and what an offer is made of."""

from decimal import Decimal
from typing import Any

from compute_market.amounts import checked, format_ppm, parse_ppm
from compute_market.errors import RefusedError, check_same
from compute_market.offers import offers
from compute_market.records import Offer, capability_document
from compute_market.reputation import reputation
from compute_market.requests import OfferRequest
from compute_market.store.txn import Txn


def post(
    txn: Txn, request: OfferRequest, key: str | None = None, market_price: int | None = None
) -> tuple[Offer, bool]:
    """Post an offer; the same request with the same id or key again changes nothing.

    `market_price` is what a price of 0 stands for, None where there is no price data. Returns the
    offer and whether it is new. Raises RefusedError for terms the market does not take, in a fixed
    order, and ConflictError naming the field when the id or key stands for another offer.
    """
    if key is None:
        return _post(txn, request, market_price)
    from compute_market import idempotency  # Few offers are posted under a key.

    asked = {"offer_id": request.offer_id, **_asked(request)}
    done = idempotency.find(txn, key, "offer_posted", asked)
    if done is not None and done.made is not None:
        return offers.get(txn, done.made), False
    offer, changed = _post(txn, request, market_price)
    idempotency.remember(txn, key, "offer_posted", asked, offer.offer_id)
    return offer, changed


def _post(txn: Txn, request: OfferRequest, market_price: int | None) -> tuple[Offer, bool]:
    existing = None if request.offer_id is None else offers.find(txn, request.offer_id)
    if existing is not None:
        asked = _asked(request)
        stored = {name: getattr(existing, name) for name in asked}
        stored["capability"] = capability_document(existing.capability)
        if existing.market_priced and not request.price_per_unit:
            stored["price_per_unit"] = 0
        hint = "use another --offer-id, or change it with `tb-cli compute offer set`"
        check_same(f"offer {existing.offer_id}", stored, asked, hint=hint)
        return existing, False
    multiplier_ppm = _check_terms(txn, request)
    price = request.price_per_unit or checked_price(market_price)
    # After this point the posting must succeed.
    offer = Offer(
        offer_id=request.offer_id or _unused_id(txn),
        seq=txn.next_number("offer_seq"),
        provider=request.provider,
        units=request.units,
        price_per_unit=price,
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
        market_priced=request.price_per_unit == 0,
    )
    reputation.seed(txn, offer.provider, offer.reputation)
    return offers.add(txn, offer), True


def _unused_id(txn: Txn) -> str:
    while True:
        offer_id = f"o-{txn.next_number('offer_id_seq')}"
        if offers.find(txn, offer_id) is None:
            return offer_id


def _check_terms(txn: Txn, request: OfferRequest) -> int:
    """The refusals of chapter 1.4, in its order and words. Returns the multiplier in ppm."""
    if request.provider_bond < 1:
        raise RefusedError(
            "provider bond too low",
            hint="--bond, in a file provider_bond, is at least 1 CT",
            reason="provider_bond_too_low",
        )
    if request.consumer_bond < 1:
        raise RefusedError(
            "consumer bond too low",
            hint="--consumer-bond, in a file consumer_bond, is at least 1 CT",
            reason="consumer_bond_too_low",
        )
    if request.units < 1:
        raise RefusedError(
            "no units offered",
            hint="--units, in a file units, is at least 1",
            reason="no_units_offered",
        )
    check_fee(request.fee_pct_ct)
    return checked_multiplier(txn, request.reputation_multiplier)


def check_fee(fee_pct_ct: int) -> None:
    """Raise RefusedError for what is no percentage."""
    if not 0 <= fee_pct_ct <= 100:
        raise RefusedError(
            "invalid fee_pct_ct",
            hint="--fee-pct-ct, in a file fee_pct_ct, is the percentage paid in CT: 0…100",
            reason="invalid_fee_pct_ct",
        )


def checked_multiplier(txn: Txn, value: Any) -> int:
    """A multiplier in ppm. Raises RefusedError for one that is none, or outside its bounds."""
    low, high = txn.config.multiplier_min_ppm, txn.config.multiplier_max_ppm
    multiplier_ppm = _multiplier(value)
    if multiplier_ppm is None or not low <= multiplier_ppm <= high:
        raise RefusedError(
            "invalid reputation multiplier",
            hint="--multiplier, in a file reputation_multiplier, is a decimal with at most 6 "
            f"places, {format_ppm(low)}…{format_ppm(high)}",
            reason="invalid_reputation_multiplier",
        )
    return multiplier_ppm


def checked_price(market_price: int | None) -> int:
    """The market price. Raises RefusedError where there is none, and for one beyond all bounds."""
    if market_price is None:
        raise RefusedError(
            "no price data",
            hint="a price of 0 means the market price, and nothing has been priced yet",
            reason="no_price_data",
        )
    return checked(market_price, "the market price")


def _multiplier(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    plain = isinstance(value, Decimal) and abs(value.adjusted()) < 20  # 1e999999999 is too long.
    text = format(value, "f") if plain else str(value)
    return parse_ppm(text)


def _asked(request: OfferRequest) -> dict[str, Any]:
    """The fields that make a request what it is, as an offer has them."""
    return {
        "provider": request.provider,
        "units": request.units,
        "price_per_unit": request.price_per_unit,
        "fee_pct_ct": request.fee_pct_ct,
        "provider_bond": request.provider_bond,
        "consumer_bond": request.consumer_bond,
        "capability": capability_document(request.capability.capability()),
        "reputation": reputation.clamp(request.reputation),
        "multiplier_ppm": _multiplier(request.reputation_multiplier),
        "job_id": request.job_id,
    }
