"""What happened under idempotency keys, and how it is stored."""

from typing import Any, Literal

from msgspec import Struct

from compute_market.records import EventName


class Tap(Struct, frozen=True, array_like=True, gc=False):
    """One deposit or withdrawal, remembered under its idempotency key."""

    key: str
    event: Literal["deposit", "withdraw"]
    owner: str
    ct: int
    it: int
    at_ms: int


class Keyed(Struct, frozen=True, array_like=True, gc=False):
    """What happened under an idempotency key, but for movements of money, which are taps."""

    event: EventName
    fields: dict[str, Any]  # as asked for: integers, texts, and the like
    made: str | None  # the id of what it made
    at_ms: int
