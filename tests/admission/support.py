"""What tests of admission share: asking and charging at once, and what was used."""

from compute_market.admission import admission, shares
from compute_market.admission.admission import Admitted
from compute_market.records import Refused, Usage
from compute_market.store.schema import USAGE
from compute_market.store.txn import Txn
from tests.support.market import Market

MICRO = 1_000_000


def enter(
    market: Market, demand: int, buyer: str = "buyer", provider: str = "prov"
) -> Admitted | Refused:
    """Ask, and charge what was admitted: what a submission does."""

    def action(txn: Txn) -> Admitted | Refused:
        verdict = admission.admit(txn, buyer, provider, demand)
        if isinstance(verdict, Admitted):
            admission.charge(txn, verdict)
        return verdict

    return market.update(action)


def reason(verdict: object) -> str:
    return verdict.reason if isinstance(verdict, Refused) else "admitted"


def key_of(role: str, identity: str) -> bytes:
    return f"{role}\0{identity}".encode()


def usage(market: Market, role: str, identity: str) -> Usage:
    return market.view(lambda txn: txn.must_read(USAGE, key_of(role, identity)))


def burst_left(market: Market, role: shares.Role, identity: str) -> int:
    return market.view(lambda txn: shares.party(txn, role, identity).burst_micro)


def used(market: Market, role: shares.Role, identity: str) -> int:
    return market.view(lambda txn: shares.party(txn, role, identity).used_micro)
