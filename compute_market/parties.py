"""Parties: who takes how much of the market, and all that is known of one of them.

Bounded: what a party has of each kind is shown up to a limit, and the log is looked at no further
back than `LOOKED_AT` events.
"""

from itertools import islice
from typing import Any, Final

from compute_market import events
from compute_market.admission import capacity, shares
from compute_market.admission.shares import WINDOW_SECS, Party
from compute_market.amounts import MICRO, PPM
from compute_market.errors import NotFoundError
from compute_market.events import Selection
from compute_market.offers import offers, standing
from compute_market.records import Side
from compute_market.reputation import reputation
from compute_market.scheduler import queue
from compute_market.settlement import escrow, ledger, wallets
from compute_market.store import sparing
from compute_market.store.schema import REPUTATION
from compute_market.store.txn import Txn

LOOKED_AT: Final = 1_000
_ROLES: Final[tuple[Side, ...]] = ("buyer", "provider")


def largest(txn: Txn, limit: int) -> list[dict[str, Any]]:
    """The parties that take the most of the capacity of the last minute, the largest first."""
    estimate = capacity.estimate(txn)
    return [_share(txn, each, estimate) for each in shares.largest(txn, limit)]


def recent(txn: Txn, limit: int) -> list[dict[str, Any]]:
    """The parties whose jobs were admitted last, the last one first."""
    estimate = capacity.estimate(txn)
    return [_share(txn, each, estimate) for each in islice(shares.recent(txn), limit)]


def is_known(txn: Txn, name: str) -> bool:
    """Whether a name is that of anybody: an owner, a provider, a buyer, or one that the last
    `LOOKED_AT` events tell of."""
    return (
        wallets.is_known(txn, name)
        or bool(txn.stored(REPUTATION, name.encode()))
        or bool(offers.ids_of_provider(txn, name, 1))
        or any(shares.party(txn, role, name).charged_ms is not None for role in _ROLES)
        or bool(events.recent(txn, Selection(owners=(name,)), 1, LOOKED_AT))
    )


def check_known(txn: Txn, name: str) -> None:
    """Raise NotFoundError for a name that nobody has."""
    if not is_known(txn, name):
        raise _missing(name)


def document(txn: Txn, name: str, limit: int) -> dict[str, Any]:
    """All there is of one party, at most `limit` of each kind, newest first; None for damage.

    Raises NotFoundError for a name that nobody has.
    """
    estimate = capacity.estimate(txn)

    def score() -> dict[str, Any]:
        return reputation.document(txn, name)

    def usage() -> list[dict[str, Any]]:
        both = [shares.party(txn, role, name) for role in _ROLES]
        return [_share(txn, each, estimate) for each in both if each.charged_ms is not None]

    def postings() -> list[dict[str, Any]]:
        return [ledger.posting_document(each) for each in ledger.newest(txn, name, limit)]

    found: dict[str, Any] = {
        "name": name,
        "wallet": escrow.balance_document(txn, name),
        "score": sparing.row({}, score) if txn.stored(REPUTATION, name.encode()) else None,
        "usage": sparing.part(usage),
        "offers": standing.rows(txn, offers.ids_of_provider(txn, name, limit)),
        "postings": sparing.part(postings),
    }
    # What is damaged is of somebody.
    is_known = found["score"] or found["offers"] or found["usage"] != [] or found["postings"] != []
    if not is_known and not events.recent(txn, Selection(owners=(name,)), 1, LOOKED_AT):
        raise _missing(name)
    return found


def _missing(name: str) -> NotFoundError:
    return NotFoundError(
        f"party {name} does not exist",
        hint="a buyer or provider is known from its first job, offer or deposit on; "
        "see `tb-cli wallet list`",
    )


def _share(txn: Txn, party: Party, estimate: int) -> dict[str, Any]:
    """What a party uses, in whole units and as ppm of what the estimate makes of a minute."""
    capacity_micro = estimate * WINDOW_SECS * MICRO
    side: Side = "provider" if party.role == "provider" else "buyer"
    return shares.document(txn, party) | {
        "share_ppm": party.used_micro * PPM // capacity_micro if capacity_micro else 0,
        "cap_ppm": txn.config.fair_share_cap_ppm,
        "slots": queue.slots_of(txn, side, party.identity),
        "charged_ms": party.charged_ms,
    }
