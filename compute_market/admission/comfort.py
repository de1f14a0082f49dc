"""The comfort guard: while consumers pay or wait too much, no industrial job is admitted.

It is tight while the 90th percentile of the last fees is above `comfort_threshold_p90`, or the 95th
percentile of the ages in the consumer pool above `comfort_max_age_p95_ms`, unless that is 0. Else
it is loose. It follows from the last fees, the pool, the settings and the instant alone.
"""

from typing import Any, Literal, get_args

from compute_market.admission import mempool
from compute_market.config.settings import Config
from compute_market.mempool_records import Pool
from compute_market.records import Refused
from compute_market.store.txn import Txn

Guard = Literal["loose", "tight"]
GUARDS: tuple[Guard, ...] = get_args(Guard)


def mode(txn: Txn) -> Guard:
    """Whether the guard is tight now."""
    pool = mempool.present(txn)
    return "tight" if crossed(pool, txn.config, mempool.age_ms(txn, pool.p95_ms)) else "loose"


def gate(txn: Txn) -> Refused | None:
    """Why the guard lets no industrial job in now, by the number and the threshold it crossed."""
    pool = mempool.present(txn)
    found = crossed(pool, txn.config, mempool.age_ms(txn, pool.p95_ms))
    if not found:
        return None
    hint = "`tb-cli mempool stats` shows fees and ages; it opens as they fall"
    message = f"the comfort guard is tight: {' and '.join(found)}"
    return Refused("comfort_guard", message, hint, is_for_now=True)


def crossed(pool: Pool, config: Config, age_p95_ms: int) -> list[str]:
    """Which thresholds a pool whose 95th percentile of ages is given crosses, in words."""
    found = []
    if pool.fee_p90 > config.comfort_threshold_p90:
        found.append(
            f"the 90th percentile of the last consumer fees is {pool.fee_p90}, above "
            f"comfort_threshold_p90 {config.comfort_threshold_p90}"
        )
    if 0 < config.comfort_max_age_p95_ms < age_p95_ms:
        found.append(
            f"the 95th percentile of the ages in the consumer pool is {age_p95_ms} ms, above "
            f"comfort_max_age_p95_ms {config.comfort_max_age_p95_ms}"
        )
    return found


def document(txn: Txn) -> dict[str, Any]:
    """The guard, the fees it goes by, and the consumer pool."""
    pool = mempool.present(txn)
    age_p50_ms, age_p95_ms = (mempool.age_ms(txn, ms) for ms in (pool.p50_ms, pool.p95_ms))
    return {
        "mode": "tight" if crossed(pool, txn.config, age_p95_ms) else "loose",
        "fee_p50": pool.fee_p50,
        "fee_p90": pool.fee_p90,
        "consumer": {"size": pool.size, "age_p50_ms": age_p50_ms, "age_p95_ms": age_p95_ms},
    }
