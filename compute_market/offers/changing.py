"""Changing an offer: other terms for the matches to come, and more units or fewer.

Jobs that hold units of it keep the quote they were given, which their placements have.
"""

from typing import Any

from msgspec import UNSET, Struct

from compute_market import events, idempotency
from compute_market.amounts import checked, format_ppm
from compute_market.errors import RefusedError, check_same
from compute_market.offers import offers
from compute_market.offers.posting import check_fee, checked_multiplier, checked_price
from compute_market.records import Offer, capability_document
from compute_market.requests import OfferChange
from compute_market.store.txn import Txn

# What cannot be changed, in the order of an offer's document.
_FIXED = ("provider", "provider_bond", "consumer_bond", "capability", "reputation", "job_id")


class Changed(Struct, frozen=True, gc=False):
    """An offer as it is by now, and what it had before of all that is other."""

    offer: Offer
    before: dict[str, Any]  # empty for an offer that is as it was

    @property
    def after(self) -> dict[str, Any]:
        """The same fields as they are by now."""
        return {name: told(self.offer)[name] for name in self.before}


def told(offer: Offer) -> dict[str, Any]:
    """What can be changed of an offer, as its document has it."""
    return {
        "price_per_unit": offer.price_per_unit,
        "units": offer.units,
        "fee_pct_ct": offer.fee_pct_ct,
        "reputation_multiplier": format_ppm(offer.multiplier_ppm),
        "market_priced": offer.market_priced,
    }


def change(txn: Txn, asked: OfferChange, key: str | None, market_price: int | None) -> Changed:
    """Change an open or exhausted offer; what is asked for again under a key changes nothing.

    Jobs that wait are tried by the next change of the market. `market_price` is what a price of 0
    stands for. Raises NotFoundError, ConflictError naming a field that cannot be changed, and
    RefusedError for terms that the market does not take, for a withdrawn offer (`withdrawn`) and
    for units that are not left (`units_not_left`).
    """
    offer = offers.get(txn, asked.offer_id)
    fields = _named(asked)
    if idempotency.find(txn, key, "offer_changed", fields) is not None:
        return Changed(offer, {})
    changes = _decided(txn, offer, asked, market_price)
    # After this point the change must succeed.
    idempotency.remember(txn, key, "offer_changed", fields)
    if not changes:
        return Changed(offer, {})
    changed = offers.change(txn, offer, changes)
    now = told(changed)
    before = {name: value for name, value in told(offer).items() if value != now[name]}
    events.note(
        txn,
        "offer_changed",
        offer_id=offer.offer_id,
        owner=offer.provider,
        **{f"was_{name}": value for name, value in before.items()},
        **{name: now[name] for name in before},
    )
    return Changed(changed, before)


def _decided(
    txn: Txn, offer: Offer, asked: OfferChange, market_price: int | None
) -> dict[str, Any]:
    """The fields of an offer that become other, with their values. Writes nothing."""
    _check_fixed(offer, asked)
    found: dict[str, Any] = {}
    if asked.price_per_unit is not UNSET:
        if asked.price_per_unit == 0:
            found["price_per_unit"] = checked_price(market_price)
            found["market_priced"] = True
        elif asked.price_per_unit != offer.price_per_unit:
            found["price_per_unit"] = asked.price_per_unit
            found["market_priced"] = False
    if asked.units is not UNSET:
        found |= _units(offer, asked.units)
    if asked.fee_pct_ct is not UNSET:
        check_fee(asked.fee_pct_ct)
        found["fee_pct_ct"] = asked.fee_pct_ct
    if asked.reputation_multiplier is not UNSET:
        found["multiplier_ppm"] = checked_multiplier(txn, asked.reputation_multiplier)
    found = {name: value for name, value in found.items() if value != getattr(offer, name)}
    if found and offer.state == "withdrawn":
        raise _withdrawn(offer)
    return found


def _withdrawn(offer: Offer) -> RefusedError:
    return RefusedError(
        f"offer {offer.offer_id} is withdrawn",
        hint="post another one; its terms are in `tb-cli compute offer show`",
        reason="withdrawn",
    )


def _units(offer: Offer, asked: int | str) -> dict[str, int]:
    """All its units, and those left: more, or fewer of those that nobody has taken."""
    by = int(asked) if isinstance(asked, str) else asked - offer.units
    if by and offer.state == "withdrawn":
        raise _withdrawn(offer)
    if by < -offer.units_left:
        raise RefusedError(
            f"offer {offer.offer_id} has {offer.units_left} of {offer.units} units left, "
            f"{-by} cannot be taken away",
            hint="the others are reserved or proven",
            reason="units_not_left",
        )
    total = checked(offer.units + by, "units of the offer")
    if total < 1:
        raise RefusedError(
            "no units offered",
            hint=f"`tb-cli compute offer withdraw {offer.offer_id}` takes it off the market",
            reason="no_units_offered",
        )
    return {"units": total, "units_left": offer.units_left + by}


def _check_fixed(offer: Offer, asked: OfferChange) -> None:
    """Raise ConflictError for a field that is other than that of the offer and has to stay."""
    given = {name: getattr(asked, name) for name in _FIXED}
    given = {name: value for name, value in given.items() if value is not UNSET}
    if "capability" in given:
        given["capability"] = capability_document(given["capability"].capability())
    stored = {name: getattr(offer, name) for name in given}
    if "capability" in stored:
        stored["capability"] = capability_document(offer.capability)
    hint = "price, units, fee_pct_ct and multiplier can be changed; post another offer for this"
    check_same(f"offer {offer.offer_id}", stored, given, hint=hint)


def _named(asked: OfferChange) -> dict[str, Any]:
    """The fields that make a change what it is, for its key."""
    found: dict[str, Any] = {}
    for name in asked.__struct_fields__:
        value = getattr(asked, name)
        if value is UNSET:
            continue
        if name == "capability":
            value = capability_document(value.capability())
        found[name] = str(value) if name == "reputation_multiplier" else value
    return found
