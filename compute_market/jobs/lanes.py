"""How many jobs wait in each lane, for an offer or for a slot.

The tables of those that wait tell how many there are of all lanes together, and `lane_jobs` what
they do not tell: how many are of the consumer lane, and how many are deferred.
"""

from compute_market.records import Lane
from compute_market.scheduler import queue
from compute_market.store.schema import LANE_JOBS, PENDING, QUEUE_PAIRS
from compute_market.store.txn import Txn


def waiting_in(txn: Txn, lane: Lane) -> int:
    """Jobs of a lane that wait for a slot or an offer, without the deferred ones."""
    return queued_in(txn, lane) + pending_in(txn, lane) - deferred_in(txn, lane)


def queued_in(txn: Txn, lane: Lane) -> int:
    """Jobs of a lane that wait for a slot."""
    of_consumers = txn.sum(LANE_JOBS, queue.lane_key("queued", "consumer"))
    return of_consumers if lane == "consumer" else txn.size(QUEUE_PAIRS) - of_consumers


def pending_in(txn: Txn, lane: Lane) -> int:
    """Jobs of a lane that wait for an offer, the deferred ones among them."""
    of_consumers = txn.sum(LANE_JOBS, queue.lane_key("pending", "consumer"))
    return of_consumers if lane == "consumer" else txn.size(PENDING) - of_consumers


def deferred_in(txn: Txn, lane: Lane) -> int:
    """Pending jobs of a lane that the present load alone kept out when they were tried last."""
    return txn.sum(LANE_JOBS, queue.lane_key("deferred", lane))
