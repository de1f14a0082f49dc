"""Amounts as text in JSON, for readers whose numbers hold 53 bits: JavaScript, and jq before 1.7.

What is an amount is told by the name of its field alone, so that a field is always a number or
always a text: money, prices, fees, bonds, units, rates of units, and what a capability counts.
Times, heights, numbers of order, sizes of files and counts of things stay numbers. So do `samples`
and `used`, which are counts in one document and units, always fewer than 2^53, in another.
"""

from typing import Any, Final

# The fields of requests, records and reports that hold an amount, or a list of them.
FIELDS: Final = frozenset(
    {
        # Money, by token and by what became of it.
        *("ct", "it", "amount", "paid_ct", "paid_it", "refunded_ct", "refunded_it"),
        *("in_circulation", "in_wallets", "escrowed", "bonded", "sealed", "burned", "burned_ct"),
        *("balance_ct", "balance_it", "received_ct", "received_it", "spent_ct", "spent_it"),
        *("escrow_ct", "escrow_it", "bonds_ct"),
        *("reward_ct", "storage", "read", "compute", "compute_it", "available"),
        # Bonds.
        *("consumer_bond", "provider_bond", "provider_bond_min", "bond_ct"),
        *("bond_locked_ct", "bond_released_ct", "was_consumer_bond", "was_provider_bond"),
        # Prices and fees.
        *("price_per_unit", "max_price_per_unit", "was_price_per_unit", "quote_price"),
        *("effective_price", "winner_price", "industrial_price_per_unit", "suggested"),
        *("p25", "median", "p75", "fee", "fee_p50", "fee_p90", "minimum_fee"),
        # Units, and units per second.
        *("units", "units_left", "units_reserved", "units_proven", "was_units", "backlog"),
        *("industrial_units_total", "industrial_backlog", "units_per_second", "estimate"),
        *("headroom", "limit", "share", "share_left", "burst", "burst_left"),
        # What an offer lacks for a job, and what would do: an amount, or a text.
        *("asked", "offered", "now", "needed"),
        # What a capability counts.
        *("cpu_cores", "gpu_count", "gpu_memory_mb", "accelerator_memory_mb"),
    }
)

_DIGITS_MAX = 19  # of 2^63−1


def as_text(document: Any) -> Any:
    """A decoded JSON document with its amounts as text of decimal digits."""
    if isinstance(document, dict):
        return {
            name: _text(value) if name in FIELDS else as_text(value)
            for name, value in document.items()
        }
    if isinstance(document, list):
        return [as_text(each) for each in document]
    return document


def as_numbers(document: dict[str, Any]) -> dict[str, Any]:
    """A decoded JSON document with those of its amounts as numbers that `as_text` made text.

    Any other text stays what it is, also one with a sign or with zeros in front.
    """
    return {
        name: _number(value)
        if name in FIELDS
        else as_numbers(value)
        if isinstance(value, dict)
        else value
        for name, value in document.items()
    }


def _text(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list):
        return [_text(each) for each in value]
    return as_text(value)


def _number(value: Any) -> Any:
    if isinstance(value, str) and is_amount(value):
        return int(value)
    return value


def is_amount(text: str) -> bool:
    """Whether a text is what `as_text` makes of an amount, leaving its size aside."""
    is_digits = text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX
    return is_digits and (text == "0" or text[0] != "0")
