"""What the market can do: the capacity that was recorded, and how much of it is left.

The whole market has one usage, which decays within the window as that of a party does. Headroom is
what is left of a window's capacity.
"""

from typing import Any

from compute_market import events
from compute_market.admission import shares
from compute_market.admission.shares import WINDOW_SECS, Party
from compute_market.amounts import MICRO, format_ppm
from compute_market.records import Refused
from compute_market.store.schema import META
from compute_market.store.txn import Txn

SAMPLES_KEPT = 8
_SAMPLES = b"capacity_samples"
# The identity that the usage of the whole market is kept under.
WHOLE_MARKET = ""


def estimate(txn: Txn) -> int:
    """Capacity in units per second: the floor of the mean of the last 8 samples.

    Without a sample, `initial_capacity`.
    """
    stored = txn.get(META, _SAMPLES)
    if not stored:
        return txn.config.initial_capacity
    found = _unpacked(stored)
    return sum(found) // len(found)


def record(txn: Txn, units_per_second: int) -> int:
    """Store a capacity sample; an empty history is seeded once. Returns the new estimate."""
    kept = [*samples(txn), units_per_second][-SAMPLES_KEPT:]
    txn.put(META, _SAMPLES, b"".join(sample.to_bytes(8, "big") for sample in kept))
    txn.helped = True
    now = sum(kept) // len(kept)
    events.note(txn, "capacity_recorded", units_per_second=units_per_second, estimate=now)
    return now


def record_once(txn: Txn, units_per_second: int, key: str | None) -> dict[str, Any]:
    """Record a sample, once with a `key`; what became of it and the estimate.

    Raises ConflictError for a key that was used for something else.
    """
    from compute_market import idempotency  # Most samples have no key.

    asked = {"units_per_second": units_per_second}
    is_new = idempotency.find(txn, key, "capacity_recorded", asked) is None
    if is_new:
        idempotency.remember(txn, key, "capacity_recorded", asked)
        record(txn, units_per_second)
    return {"recorded": units_per_second, "estimate": estimate(txn), "changed": is_new}


def samples(txn: Txn) -> list[int]:
    """The samples the estimate is made of, oldest first."""
    return _unpacked(txn.get(META, _SAMPLES) or b"") or [txn.config.initial_capacity]


def _unpacked(stored: bytes) -> list[int]:
    return [int.from_bytes(stored[i : i + 8]) for i in range(0, len(stored), 8)]


def headroom_micro(txn: Txn) -> int:
    """What may still be admitted now, in micro-units; not below zero."""
    capacity_micro = estimate(txn) * WINDOW_SECS * MICRO
    return max(0, capacity_micro - whole_market(txn).used_micro)


def whole_market(txn: Txn) -> Party:
    """The market as a party: what all jobs together use."""
    return shares.party(txn, "market", WHOLE_MARKET)


def check(txn: Txn, now: int, market: Party, demand: int) -> Refused | None:
    """Whether a market of `now` units a second has room for `demand` units at present.

    If not, why and for how long.
    """
    least = txn.config.min_capacity
    if now < least:
        return Refused(
            "capacity",
            f"the capacity estimate {now} units/s is below min_capacity {least}",
            "`tb-cli compute-market capacity record N` records what the market can do",
        )
    window = now * WINDOW_SECS
    room_micro = (window - demand) * MICRO
    if market.used_micro <= room_micro:
        return None
    if room_micro < 0:
        return Refused(
            "capacity",
            f"the job needs {demand} units, the market does {window} in {WINDOW_SECS} s",
            f"split it into jobs of at most {window} units, or record a higher capacity",
        )
    left = format_ppm(max(0, window * MICRO - market.used_micro))
    wait_ms = shares.decay_wait_ms(market, room_micro)
    return Refused(
        "capacity",
        f"the job needs {demand} units, {left} of the {window} in {WINDOW_SECS} s are left",
        f"it would pass in {-(-wait_ms // 1000)} s",
        wait_ms,
    )


def document(txn: Txn) -> dict[str, Any]:
    """`capacity show`: samples, estimate, headroom, what a party may use, and what each does use.

    In units, rounded down: `share` is what each may use of a window of `window_secs`, `burst` what
    a full bucket holds beyond that. Of the parties, those of the last 1000 charges.
    """
    now = estimate(txn)
    share = shares.cap_micro(txn, now) // MICRO
    return {
        "estimate": now,
        "samples": samples(txn),
        "headroom": headroom_micro(txn) // MICRO,
        "window_secs": WINDOW_SECS,
        "share": share,
        "burst": txn.config.burst_quota_micro // MICRO,
        "parties": [_party_document(txn, each, share) for each in shares.recent(txn)],
    }


def _party_document(txn: Txn, party: Party, share: int) -> dict[str, Any]:
    found = shares.document(txn, party)
    # What is used is rounded down, and what is left as well.
    used = -(-party.used_micro // MICRO)
    return found | {"share_left": max(0, share - used)}
