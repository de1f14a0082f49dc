"""Fair share and burst: how much of the capacity one party may take.

A party is an identity in one role. All in integer micro-units. `decide` writes nothing; `charge`
records what an admitted job uses. A refused attempt touches nobody's clock. The only writer of
`usage` and its index by time.
"""

from collections.abc import Iterator
from functools import partial
from itertools import islice, takewhile
from typing import Any, Literal

from msgspec import Struct

from compute_market.amounts import MICRO, format_ppm
from compute_market.records import Refused, Usage, replace
from compute_market.store.schema import USAGE, USAGE_RECENT, pack_u64, unpack_u64
from compute_market.store.txn import Txn

# The market as a whole is a role of its own.
Role = Literal["buyer", "provider", "market"]

WINDOW_SECS = 60
WINDOW_MS = WINDOW_SECS * 1000
# Parties that a listing or a scrape shows.
SHOWN_MAX = 1000


class Party(Struct, frozen=True, gc=False):
    """One identity in one role, as of now."""

    role: Role
    identity: str
    charged_ms: int | None  # when it was charged last
    charged_micro: int  # usage then
    bucket_micro: int  # burst bucket then
    since_ms: int  # time since then; one that is still to come counts as now
    used_micro: int  # now
    burst_micro: int  # now
    key: bytes  # that its usage is stored under


def party(txn: Txn, role: Role, identity: str) -> Party:
    """Usage decays linearly to nothing within the window, the bucket refills up to its quota."""
    quota_micro = txn.config.burst_quota_micro
    key = _key(role, identity)
    usage = txn.read(USAGE, key)
    if usage is None:
        return Party(role, identity, None, 0, quota_micro, 0, 0, quota_micro, key)
    since_ms = txn.now_ms - usage.at_ms
    if since_ms < 0:
        since_ms = 0
    left_ms = WINDOW_MS - since_ms
    used_micro = usage.used_micro * left_ms // WINDOW_MS if left_ms > 0 else 0
    burst_micro = usage.burst_micro + txn.config.burst_refill_rate_micro * since_ms // 1000
    if burst_micro > quota_micro:
        burst_micro = quota_micro
    return Party(
        role,
        identity,
        usage.at_ms,
        usage.used_micro,
        usage.burst_micro,
        since_ms,
        used_micro,
        burst_micro,
        key,
    )


def cap_micro(txn: Txn, capacity: int) -> int:
    """What one party may use of a window of so many units a second, before it bursts."""
    return txn.config.fair_share_cap_ppm * capacity * WINDOW_SECS  # ppm are micro-units


def decide(txn: Txn, parties: tuple[Party, ...], demand: int, capacity: int) -> Refused | int:
    """Whether these parties may take `demand` units of so many a second.

    Returns what their burst buckets have to give for it in micro-units, 0 within their shares.
    """
    demand_micro = demand * MICRO
    share_micro = cap_micro(txn, capacity)
    # Exactly the cap still fits.
    room_micro = share_micro - demand_micro
    for each in parties:
        if each.used_micro > room_micro:
            break
    else:
        return 0
    if all(each.burst_micro >= demand_micro for each in parties):
        return demand_micro
    return _refusal(txn, parties, demand, share_micro)


def charge(txn: Txn, charged: Party, demand: int, burst_micro: int) -> None:
    """Record what an admitted job uses, in the transaction that admits it.

    Nothing else was charged to the party since it was looked at.
    """
    key = charged.key
    used_micro = charged.used_micro + demand * MICRO
    txn.write(USAGE, key, Usage(used_micro, charged.burst_micro - burst_micro, txn.now_ms))
    if charged.role != "market" and charged.charged_ms != txn.now_ms:
        if charged.charged_ms is not None:
            txn.delete(USAGE_RECENT, charged.charged_ms.to_bytes(8) + key)
        txn.put(USAGE_RECENT, txn.now_ms.to_bytes(8) + key)


def bring_to_now(txn: Txn) -> None:
    """Let who was charged by a clock that was ahead count as charged now, and fade from now on."""
    charged = [_key("market", "")]
    for stamp, _ in list(takewhile(partial(_is_ahead, txn), txn.scan_back(USAGE_RECENT))):
        charged.append(stamp[8:])
        txn.delete(USAGE_RECENT, stamp)
        txn.put(USAGE_RECENT, pack_u64(txn.now_ms) + stamp[8:])
    for key in charged:
        usage = txn.read(USAGE, key)
        if usage is not None and usage.at_ms > txn.now_ms:
            txn.write(USAGE, key, replace(usage, at_ms=txn.now_ms))


def give_back(
    txn: Txn, role: Role, identity: str, demand: int, burst_micro: int, charged_ms: int
) -> None:
    """Take back what was charged for a job at an instant, as far as it still counts.

    Nobody's clock is touched, and nobody comes to have more than if it had never been charged.
    """
    key = _key(role, identity)
    usage = txn.read(USAGE, key)
    if usage is None:
        return
    # How long the charge had decayed, and the bucket refilled, by the last charge of all.
    elapsed_ms = max(0, usage.at_ms - charged_ms)
    used_micro = demand * MICRO * max(WINDOW_MS - elapsed_ms, 0) // WINDOW_MS
    refilled_micro = txn.config.burst_refill_rate_micro * elapsed_ms // 1000
    left_micro = usage.used_micro - used_micro
    bucket_micro = usage.burst_micro + max(0, burst_micro - refilled_micro)
    bucket_micro = min(bucket_micro, max(txn.config.burst_quota_micro, usage.burst_micro))
    txn.write(USAGE, key, Usage(max(0, left_micro), bucket_micro, usage.at_ms))


def is_party(key: bytes) -> bool:
    """Whether a key of `usage` is that of a buyer or provider, and not the market's own."""
    return not key.startswith(_key("market", ""))


def recent(txn: Txn) -> Iterator[Party]:
    """Parties of the last `SHOWN_MAX` charges, the last one first."""
    for key, _ in islice(txn.scan_back(USAGE_RECENT), SHOWN_MAX):
        role, _, identity = key[8:].decode().partition("\0")
        yield party(txn, "buyer" if role == "buyer" else "provider", identity)


def largest(txn: Txn, limit: int) -> list[Party]:
    """The `limit` parties that use the most of the capacity now, the largest first.

    Of those that were charged within the window, whose usage alone counts, at most `SHOWN_MAX`.
    """
    charged = takewhile(lambda each: each.since_ms < WINDOW_MS, recent(txn))
    using = [each for each in charged if each.used_micro]
    return sorted(using, key=lambda each: (-each.used_micro, each.role, each.identity))[:limit]


def document(txn: Txn, shown: Party) -> dict[str, Any]:
    """The JSON form of a party: whole units, rounded down."""
    return {
        "role": shown.role,
        "identity": shown.identity,
        "used": shown.used_micro // MICRO,
        "burst_left": shown.burst_micro // MICRO,
    }


def decay_wait_ms(waiting: Party, room_micro: int) -> int:
    """Milliseconds until a usage has decayed to `room_micro`, which is not below zero."""
    if waiting.used_micro <= room_micro:
        return 0
    # The largest remainder of the window at which the decayed usage is still within the room.
    left_ms = ((room_micro + 1) * WINDOW_MS - 1) // waiting.charged_micro
    return WINDOW_MS - left_ms - waiting.since_ms


def _refusal(txn: Txn, parties: tuple[Party, ...], demand: int, share_micro: int) -> Refused:
    demand_micro = demand * MICRO
    over = max(parties, key=lambda each: each.used_micro)
    quota_micro = txn.config.burst_quota_micro
    room_micro = share_micro - demand_micro
    waits: list[int] = []
    if room_micro >= 0:
        waits.append(max(decay_wait_ms(each, room_micro) for each in parties))
    if demand_micro <= quota_micro and (wait := _burst_wait_ms(txn, parties, demand_micro)):
        waits.append(wait)
    wait_ms = min(waits) if waits else None
    share = (
        f"{over.role} {over.identity} used {format_ppm(over.used_micro)} of the "
        f"{format_ppm(share_micro)} units a minute allows, the job needs {demand}"
    )
    hint = (
        "split it into smaller jobs; `tb-cli compute-market capacity show` tells what a party may "
        "use"
        if wait_ms is None
        else f"it would pass in {-(-wait_ms // 1000)} s"
    )
    if demand_micro > quota_micro:
        quota = format_ppm(quota_micro)
        return Refused("fair_share", f"{share}, more than burst_quota {quota}", hint, wait_ms)
    low = min(parties, key=lambda each: each.burst_micro)
    return Refused(
        "burst_exhausted",
        f"{share}, and the burst bucket of {low.role} {low.identity} holds "
        f"{format_ppm(low.burst_micro)}",
        hint,
        wait_ms,
    )


def _burst_wait_ms(txn: Txn, parties: tuple[Party, ...], demand_micro: int) -> int | None:
    """Milliseconds until the buckets hold the demand; None when they do not refill."""
    rate = txn.config.burst_refill_rate_micro
    wait_ms = 0
    for each in parties:
        if each.burst_micro < demand_micro:
            if rate == 0:
                return None
            missing = demand_micro - each.bucket_micro
            wait_ms = max(wait_ms, -(-missing * 1000 // rate) - each.since_ms)
    return wait_ms


def _is_ahead(txn: Txn, entry: tuple[bytes, bytes]) -> bool:
    """Whether an entry of `usage_recent` lies in the future."""
    return unpack_u64(entry[0][:8]) > txn.now_ms


def _key(role: Role, identity: str) -> bytes:
    return f"{role}\0{identity}".encode()
