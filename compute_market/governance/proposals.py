"""What operators ask of the parameters, under a key if they like, and the documents of it."""

from typing import TYPE_CHECKING, Any

from compute_market import idempotency
from compute_market.governance import governance, parameters
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    from compute_market.governance_records import Parameter, Proposal


def propose(
    txn: Txn, name: str, value: int, key: str | None = None
) -> "tuple[Proposal, dict[str, Any]]":
    """Propose a value, as `Config` holds it. With a `key` the same again finds the proposal.

    Raises ConflictError for a key that stands for something else.
    """
    asked = {"key": name, "value": parameters.text(name, value)}
    done = idempotency.find(txn, key, "params_proposed", asked)
    if done is not None:
        proposal = governance.get(txn, int(done.made or 0))
    else:
        proposal = governance.propose(txn, name, value)
        idempotency.remember(txn, key, "params_proposed", asked, str(proposal.id))
    return proposal, _document(txn, proposal, changed=done is None)


def approve(txn: Txn, proposal_id: int) -> "tuple[Proposal, dict[str, Any]]":
    """Approve a proposal. Raises what `governance.approve` raises."""
    approved = governance.approve(txn, proposal_id)
    return approved.proposal, _document(txn, approved.proposal, changed=approved.changed)


def roll_back(
    txn: Txn, key: str | None = None
) -> "tuple[Proposal, Parameter | None, dict[str, Any]]":
    """Undo the last activation: the proposal, and what is in force instead, None for the setting.

    With a `key` the same again goes back no further. Raises what `governance.roll_back` raises.
    """
    done = idempotency.find(txn, key, "params_rolled_back", {})
    if done is not None:
        proposal = governance.get(txn, int(done.made or 0))
        restored = governance.standing(txn).in_force.get(proposal.key)
    else:
        proposal, restored = governance.roll_back(txn)
        idempotency.remember(txn, key, "params_rolled_back", {}, str(proposal.id))
    return proposal, restored, _document(txn, proposal, changed=done is None)


def _document(txn: Txn, proposal: "Proposal", *, changed: bool) -> dict[str, Any]:
    return governance.document(proposal, governance.standing(txn)) | {"changed": changed}
