"""Who may submit how much: capacity, fair share, burst. All in integer micro-units.

`admit` decides without writing; `charge` records what an admitted job uses. A refused attempt
touches nobody's clock.
"""

from typing import Literal, NamedTuple

from compute_market import metrics
from compute_market.amounts import format_ppm
from compute_market.config.settings import Config
from compute_market.records import Refused, Usage
from compute_market.store.store import Txn

Role = Literal["buyer", "provider"]

MICRO = 1_000_000
WINDOW_SECS = 60
WINDOW_MS = WINDOW_SECS * 1000
CAPACITY_SAMPLES = 8


class Admitted(NamedTuple):
    """A verdict of "yes" and what to record for it."""

    buyer: Usage
    provider: Usage


class _Party(NamedTuple):
    """One identity in one role, as of now."""

    role: Role
    identity: str
    charged_micro: int  # usage at the last charge
    bucket_micro: int  # burst bucket at the last charge
    since_ms: int  # time since then; below zero when the clock was set back
    used_micro: int  # now
    burst_micro: int  # now


def estimate(txn: Txn, config: Config) -> int:
    """Capacity in units per second: the floor of the mean of the last 8 samples.

    Without a sample, `initial_capacity`.
    """
    samples = _samples(txn) or [config.initial_capacity]
    return sum(samples) // len(samples)


def record_capacity(txn: Txn, config: Config, units_per_second: int) -> int:
    """Store a capacity sample; an empty history is seeded once. Returns the new estimate."""
    samples = _samples(txn) or [config.initial_capacity]
    kept = [*samples, units_per_second][-CAPACITY_SAMPLES:]
    txn.put("meta", b"capacity_samples", b"".join(sample.to_bytes(8, "big") for sample in kept))
    return sum(kept) // len(kept)


def admit(txn: Txn, config: Config, buyer: str, provider: str, demand: int) -> Admitted | Refused:
    """Whether a job of `demand` units may enter now, and if not, why and for how long.

    Checks in order: the estimate against `min_capacity`, the demand against the estimate, both
    fair shares, both burst buckets.
    """
    capacity = estimate(txn, config)
    if capacity < config.min_capacity:
        return Refused(
            "capacity",
            f"the capacity estimate {capacity} units/s is below min_capacity {config.min_capacity}",
            "record a higher one with `tb-cli compute-market capacity record N`",
        )
    if demand > capacity:
        return Refused(
            "capacity",
            f"the job needs {demand} units, the capacity estimate is {capacity} units/s",
            "split the job, or record a higher capacity",
        )
    parties = (
        _party(txn, config, "buyer", buyer),
        _party(txn, config, "provider", provider),
    )
    demand_micro = demand * MICRO
    shares_fit = all(_share_fits(config, capacity, party, demand_micro) for party in parties)
    burst_fits = all(party.burst_micro >= demand_micro for party in parties)
    if not shares_fit and not burst_fits:
        return _refusal(config, capacity, parties, demand)
    burst_micro = 0 if shares_fit else demand_micro
    return Admitted(
        *(
            Usage(party.used_micro + demand_micro, party.burst_micro - burst_micro, txn.now_ms)
            for party in parties
        )
    )


def charge(txn: Txn, buyer: str, provider: str, admitted: Admitted) -> None:
    """Record what an admitted job uses, in the transaction that admits it."""
    txn.write("usage", _key("buyer", buyer), admitted.buyer)
    txn.write("usage", _key("provider", provider), admitted.provider)
    metrics.count(txn, "industrial_admitted_total")


def count_refusal(txn: Txn, refused: Refused) -> None:
    metrics.count(txn, "industrial_rejected_total", refused.reason)
    if refused.reason == "capacity":
        metrics.count(txn, "industrial_deferred_total")


def burst_left(txn: Txn, config: Config, role: Role, identity: str) -> int:
    """What the burst bucket holds now, in micro-units."""
    return _party(txn, config, role, identity).burst_micro


def known_parties(txn: Txn) -> list[tuple[int, Role, str]]:
    """Every identity that was ever charged, as (time of the last charge, role, identity)."""
    found: list[tuple[int, Role, str]] = []
    for role in ("buyer", "provider"):
        prefix = _key(role, "")
        for key, _ in txn.scan("usage", prefix):
            usage: Usage = txn.read("usage", key)
            found.append((usage.at_ms, role, key[len(prefix) :].decode()))
    return found


def _samples(txn: Txn) -> list[int]:
    stored = txn.get("meta", b"capacity_samples") or b""
    return [int.from_bytes(stored[i : i + 8], "big") for i in range(0, len(stored), 8)]


def _party(txn: Txn, config: Config, role: Role, identity: str) -> _Party:
    usage: Usage | None = txn.read("usage", _key(role, identity))
    if usage is None:
        quota_micro = config.burst_quota_micro
        return _Party(role, identity, 0, quota_micro, 0, 0, quota_micro)
    since_ms = txn.now_ms - usage.at_ms
    elapsed_ms = max(0, since_ms)
    # Usage decays linearly to nothing within the window, the bucket refills up to its quota.
    used_micro = usage.used_micro * max(WINDOW_MS - elapsed_ms, 0) // WINDOW_MS
    refilled = usage.burst_micro + config.burst_refill_rate_micro * elapsed_ms // 1000
    burst_micro = min(refilled, config.burst_quota_micro)
    return _Party(
        role, identity, usage.used_micro, usage.burst_micro, since_ms, used_micro, burst_micro
    )


def _share_fits(config: Config, capacity: int, party: _Party, demand_micro: int) -> bool:
    """(usage + demand) / (estimate × 60) ≤ fair_share_cap; exactly the cap still fits."""
    return party.used_micro + demand_micro <= _share_micro(config, capacity)


def _share_micro(config: Config, capacity: int) -> int:
    return config.fair_share_cap_ppm * capacity * WINDOW_SECS  # ppm of units are micro-units


def _refusal(config: Config, capacity: int, parties: tuple[_Party, _Party], demand: int) -> Refused:
    share_micro = _share_micro(config, capacity)
    demand_micro = demand * MICRO
    over = max(parties, key=lambda party: party.used_micro)
    hopeless = demand_micro > config.burst_quota_micro
    waits = [_share_wait_ms(parties, demand_micro, share_micro)]
    if not hopeless:
        waits.append(_burst_wait_ms(config, parties, demand_micro))
    known = [wait for wait in waits if wait is not None]
    wait_ms = min(known) if known else None
    share = (
        f"{over.role} {over.identity} used {format_ppm(over.used_micro)} of the "
        f"{format_ppm(share_micro)} units a minute allows, the job needs {demand}"
    )
    hint = None if wait_ms is None else f"it would pass in {-(-wait_ms // 1000)} s"
    if hopeless:
        quota = format_ppm(config.burst_quota_micro)
        return Refused("fair_share", f"{share}, more than burst_quota {quota}", hint, wait_ms)
    low = min(parties, key=lambda party: party.burst_micro)
    return Refused(
        "burst_exhausted",
        f"{share}, and the burst bucket of {low.role} {low.identity} holds "
        f"{format_ppm(low.burst_micro)}",
        hint,
        wait_ms,
    )


def _share_wait_ms(
    parties: tuple[_Party, _Party], demand_micro: int, share_micro: int
) -> int | None:
    """Milliseconds until decay brings both shares under the cap; None when it never does."""
    room = share_micro - demand_micro
    if room < 0:
        return None
    wait_ms = 0
    for party in parties:
        if party.used_micro > room:
            # The largest remainder of the window at which the decayed usage is still ≤ room.
            left_ms = ((room + 1) * WINDOW_MS - 1) // party.charged_micro
            wait_ms = max(wait_ms, WINDOW_MS - left_ms - party.since_ms)
    return wait_ms


def _burst_wait_ms(config: Config, parties: tuple[_Party, _Party], demand_micro: int) -> int | None:
    """Milliseconds until both buckets hold the demand; None when they do not refill."""
    rate = config.burst_refill_rate_micro
    wait_ms = 0
    for party in parties:
        if party.burst_micro < demand_micro:
            if rate == 0:
                return None
            missing = demand_micro - party.bucket_micro
            wait_ms = max(wait_ms, -(-missing * 1000 // rate) - party.since_ms)
    return wait_ms


def _key(role: Role, identity: str) -> bytes:
    return f"{role}\0{identity}".encode()
