"""What the audit checks of proposals, and of the parameters they put in force."""

from collections.abc import Iterator

from compute_market.governance import governance, parameters
from compute_market.governance_records import Parameter, Proposal
from compute_market.laws import Law, Violation, same_size
from compute_market.store.schema import (
    META,
    PARAMETERS,
    PARAMETERS_DUE,
    PARAMETERS_SET,
    PROPOSALS,
    pack_u64,
    unpack_u64,
)
from compute_market.store.txn import Txn

_NUMBERED = "proposals are numbered from 1 on, without gaps"
_ALLOWED = "a proposal is for a parameter, and within its bounds"
_APPROVED = "a proposal has an approval and a height once it is approved, and not before"
_DUE = "every approved proposal waits for its height, and no other"
_STACKED = "active proposals lie one upon the other in the order they came into force"
_IN_FORCE = "a parameter has the value of its last active proposal"
_COUNTED = "it is known how many parameters proposals set, or are to set"


def _proposals(txn: Txn) -> Iterator[Violation]:
    """Each proposal by itself."""
    expected = 0
    for key, payload in txn.scan(PROPOSALS):
        proposal = PROPOSALS.decode(key, payload)
        expected += 1
        if not proposal.id == unpack_u64(key) == expected:
            detail = f"expected {expected}, its record says {proposal.id}"
            yield Violation("proposals", str(unpack_u64(key)), _NUMBERED, detail)
            return
        least, most = _bounds(proposal.key)
        if not least <= proposal.value <= most:
            detail = f"{proposal.key} {proposal.value}"
            yield Violation("proposals", str(proposal.id), _ALLOWED, detail)
        is_approved = proposal.state != "proposed"
        if is_approved != (proposal.approval > 0) or is_approved != (proposal.activates_at > 0):
            detail = f"{proposal.state}, approval {proposal.approval} at {proposal.activates_at}"
            yield Violation("proposals", str(proposal.id), _APPROVED, detail)
    if expected != txn.number(governance.PROPOSALS_MADE):
        detail = f"{expected} are found of {txn.number(governance.PROPOSALS_MADE)}"
        yield Violation("proposals", "*", _NUMBERED, detail)


def _due(txn: Txn) -> Iterator[Violation]:
    """What waits, and how much there is to look at in each transaction."""
    count = 0
    for proposal in txn.records(PROPOSALS):
        if proposal.state == "approved":
            count += 1
            if txn.get(PARAMETERS_DUE, governance.due_key(proposal)) != pack_u64(proposal.id):
                yield Violation("parameters_due", str(proposal.id), _DUE, "it does not")
    yield from same_size(txn, PARAMETERS_DUE, count, _DUE)
    should = txn.size(PARAMETERS) + txn.size(PARAMETERS_DUE)
    if txn.number(PARAMETERS_SET) != should:
        detail = f"{txn.number(PARAMETERS_SET)}, the tables have {should}"
        yield Violation("meta", PARAMETERS_SET, _COUNTED, detail)


def _active(txn: Txn) -> Iterator[Violation]:
    """What is in force, and what a rollback leads back to."""
    active = [each for each in txn.records(PROPOSALS) if each.state == "active"]
    in_force: dict[str, Proposal] = {}
    last = 0
    for proposal in sorted(active, key=governance.due_key):
        before = in_force.get(proposal.key)
        right = (0 if before is None else before.id, last)
        if (proposal.before, proposal.below) != right:
            detail = f"upon {proposal.before} and {proposal.below}, not upon {right}"
            yield Violation("proposals", str(proposal.id), _STACKED, detail)
        in_force[proposal.key] = proposal
        last = proposal.id
    if txn.number(governance.LAST_ACTIVE) != last:
        detail = f"{txn.number(governance.LAST_ACTIVE)} is said to be the last, not {last}"
        yield Violation("meta", governance.LAST_ACTIVE, _STACKED, detail)
    should = {key: Parameter(each.value, each.id) for key, each in in_force.items()}
    found = {key.decode(): PARAMETERS.decode(key, value) for key, value in txn.scan(PARAMETERS)}
    for key in sorted(should.keys() | found.keys()):
        if should.get(key) != found.get(key):
            detail = f"{found.get(key)}, proposals say {should.get(key)}"
            yield Violation("parameters", key, _IN_FORCE, detail)


def _bounds(key: str) -> tuple[int, int]:
    """The bounds of a parameter; those of nothing where it is none."""
    return parameters.bounds(key) if key in parameters.FIELDS else (1, 0)


LAWS = (
    Law(_proposals, (PROPOSALS, META)),
    Law(_due, (PROPOSALS, PARAMETERS, PARAMETERS_DUE, META)),
    Law(_active, (PROPOSALS, PARAMETERS, META)),
)
