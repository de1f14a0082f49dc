"""Proposals: what changes a parameter of the market while it runs, and the values in force.

A proposal is approved and comes into force at the begin of the second epoch after that, at a height
that is fixed then. The last one that came into force can be rolled back, then the one before it.
The setting of the configuration lies under all of them.

What is in force follows from what is stored, from the height, and from whether the clock is
believed. So a view shows what the next change will find, before that writes it down. The only
writer of its tables.
"""

from typing import Any, Final, NamedTuple

from msgspec import Struct

from compute_market import chain, events
from compute_market.amounts import AMOUNT_MAX
from compute_market.config.settings import Config
from compute_market.errors import NotFoundError, RefusedError
from compute_market.governance import parameters
from compute_market.governance_records import Parameter, Proposal
from compute_market.records import replace
from compute_market.store.schema import (
    PARAMETERS,
    PARAMETERS_DUE,
    PARAMETERS_SET,
    PROPOSALS,
    pack_u64,
    unpack_u64,
)
from compute_market.store.txn import Txn

# Epochs from the one in which a proposal is approved to the one that it is in force from.
DELAY_EPOCHS: Final = 2
# Approved proposals that wait for their height at most.
WAITING_MAX: Final = 64

# Numbers of `meta`.
PROPOSALS_MADE: Final = "proposals_made"
APPROVALS_MADE: Final = "proposals_approved"
LAST_ACTIVE: Final = "proposal_active_last"  # the id of what a rollback takes back, 0 for none


class Approved(Struct, frozen=True, gc=False):
    proposal: Proposal
    changed: bool  # False for one that was approved before


class RolledBack(NamedTuple):
    proposal: Proposal
    restored: Parameter | None  # what is in force again; None for the setting


class Standing(Struct, frozen=True):
    """Where proposals stand at the instant of a transaction."""

    in_force: dict[str, Parameter]  # by key; a parameter that is as configured is not among them
    due: tuple[int, ...]  # ids of those that came into force and are not written down as active


def in_force(txn: Txn) -> Config:
    """The settings with the values that proposals have put in force.

    `txn.config` must be that of the configuration. A market asks once at the begin of each
    transaction, so that nothing changes within one.
    """
    found = standing(txn).in_force
    return replace(
        txn.config, **{parameters.FIELDS[key]: each.value for key, each in found.items()}
    )


def standing(txn: Txn) -> Standing:
    """What is in force by proposals, and which of them nobody has written down yet."""
    found = {key.decode(): PARAMETERS.decode(key, value) for key, value in txn.scan(PARAMETERS)}
    due = _due(txn)
    for proposal in due:
        found[proposal.key] = Parameter(proposal.value, proposal.id)
    return Standing(found, tuple(proposal.id for proposal in due))


def activate(txn: Txn) -> tuple[str, ...]:
    """Write down which proposals came into force; what they have set, a text for each key."""
    return tuple({each.key: _activate(txn, each) for each in _due(txn)}.values())


def propose(txn: Txn, key: str, value: int) -> Proposal:
    """Make a proposal. Its value has been read by `parameters.parse`."""
    proposal_id = txn.next_number(PROPOSALS_MADE)
    proposal = Proposal(proposal_id, key, value, "proposed", txn.now_ms)
    _put(txn, proposal)
    events.note(txn, "params_proposed", **_told(proposal))
    return proposal


def approve(txn: Txn, proposal_id: int, *, at_once: bool = False) -> Approved:
    """Let a proposal come into force; one that was approved before is left as it is.

    `at_once` is for whoever plays a market again and knows when it came into force: with the next
    transaction then.
    Raises NotFoundError, and RefusedError for one that was rolled back (`rolled_back`), when too
    many wait already (`too_many`) and when the height is not to be reached (`overflow`).
    """
    proposal = get(txn, proposal_id)
    if proposal.state == "rolled_back":
        what = f"{proposal.key} {parameters.text(proposal.key, proposal.value)}"
        raise RefusedError(
            f"proposal {proposal_id} was rolled back",
            hint=f"`tb-cli compute-market params propose {what}` proposes it again",
            reason="rolled_back",
        )
    if proposal.state != "proposed":
        return Approved(proposal, changed=False)
    if txn.size(PARAMETERS_DUE) >= WAITING_MAX:
        raise RefusedError(
            f"proposal {proposal_id} is one too many: {WAITING_MAX} that are approved wait for "
            "their height already",
            hint="approve it when some of them are in force",
            reason="too_many",
        )
    epoch_blocks = txn.config.epoch_blocks
    activates_at = (chain.height(txn) // epoch_blocks + DELAY_EPOCHS) * epoch_blocks
    if at_once:
        activates_at = max(1, chain.height(txn))
    if activates_at > AMOUNT_MAX:
        raise RefusedError(
            f"the height of proposal {proposal_id} would pass {AMOUNT_MAX}", reason="overflow"
        )
    approval = txn.next_number(APPROVALS_MADE)
    proposal = replace(proposal, state="approved", approval=approval, activates_at=activates_at)
    _put(txn, proposal)
    txn.put(PARAMETERS_DUE, due_key(proposal), pack_u64(proposal_id))
    _count(txn, 1)
    events.note(txn, "params_approved", **_told(proposal), activates_at=activates_at)
    return Approved(proposal, changed=True)


def roll_back(txn: Txn) -> RolledBack:
    """Undo what came into force last and is not undone yet, from the next transaction on.

    Raises RefusedError (`nothing_active`).
    """
    last = txn.number(LAST_ACTIVE)
    if not last:
        raise RefusedError(
            "no proposal is active: there is nothing to roll back",
            hint="`tb-cli compute-market params history` lists what became of each",
            reason="nothing_active",
        )
    proposal = replace(_named(txn, last), state="rolled_back")
    _put(txn, proposal)
    txn.set_number(LAST_ACTIVE, proposal.below)
    key = proposal.key.encode()
    if proposal.before:
        restored = Parameter(_named(txn, proposal.before).value, proposal.before)
        txn.write(PARAMETERS, key, restored)
    else:
        restored = None
        txn.remove(PARAMETERS, key)
        _count(txn, -1)
    txn.helped = True  # A job that waits may get in under the value from before.
    to = None if restored is None else parameters.text(proposal.key, restored.value)
    events.note(txn, "params_rolled_back", **_told(proposal), to=to)
    return RolledBack(proposal, restored)


def get(txn: Txn, proposal_id: int) -> Proposal:
    """A proposal as it is stored. Raises NotFoundError."""
    found = txn.read(PROPOSALS, pack_u64(proposal_id))
    if found is None:
        raise NotFoundError(
            f"proposal {proposal_id} does not exist",
            hint="see `tb-cli compute-market params history`",
        )
    return found


def count(txn: Txn) -> int:
    """How many proposals were ever made. They are numbered from 1 on."""
    return txn.number(PROPOSALS_MADE)


def pending(txn: Txn) -> dict[str, int]:
    """How many approved proposals wait for their height, by key."""
    found = dict.fromkeys(parameters.FIELDS, 0)
    for proposal in _approved(txn):
        found[proposal.key] += 1
    for proposal in _due(txn):
        found[proposal.key] -= 1
    return found


def document(proposal: Proposal, now: Standing) -> dict[str, Any]:
    """The JSON form of a proposal, as it stands at the instant of a transaction."""
    parameter = now.in_force.get(proposal.key)
    return {
        "id": proposal.id,
        "key": proposal.key,
        "value": parameters.number(proposal.key, proposal.value),
        "state": "active" if proposal.id in now.due else proposal.state,
        **({"activates_at": proposal.activates_at} if proposal.approval else {}),
        "in_force": parameter is not None and parameter.proposal == proposal.id,
        "proposed_at": proposal.proposed_ms // 1000,
    }


def page(txn: Txn, after: bytes | None, limit: int) -> tuple[list[dict[str, Any]], bytes | None]:
    """Documents of at most `limit` proposals behind the key `after`, by id; see `Txn.page`."""
    now = standing(txn)
    found, last = txn.page(PROPOSALS, after, limit)
    return [document(proposal, now) for _, proposal in found], last


def due_key(proposal: Proposal) -> bytes:
    """Where an approved proposal waits: by height, then in the order of approval."""
    return pack_u64(proposal.activates_at) + pack_u64(proposal.approval)


def _due(txn: Txn) -> list[Proposal]:
    """Approved proposals whose height has come; none while the clock is not believed."""
    waiting = _approved(txn) if txn.timely else []
    if not waiting:
        return []
    height = chain.height(txn)
    return [proposal for proposal in waiting if proposal.activates_at <= height]


def _approved(txn: Txn) -> list[Proposal]:
    """Approved proposals that are not written down as active, in the order of activation."""
    entries = txn.collect(PARAMETERS_DUE, WAITING_MAX)
    return [_named(txn, unpack_u64(proposal_id)) for _, proposal_id in entries]


def _activate(txn: Txn, proposal: Proposal) -> str:
    key = proposal.key.encode()
    present = txn.read(PARAMETERS, key)
    txn.remove(PARAMETERS_DUE, due_key(proposal))
    if present is not None:
        _count(txn, -1)  # What waited takes the place of what was in force.
    proposal = replace(
        proposal,
        state="active",
        before=0 if present is None else present.proposal,
        below=txn.number(LAST_ACTIVE),
    )
    _put(txn, proposal)
    txn.write(PARAMETERS, key, Parameter(proposal.value, proposal.id))
    txn.set_number(LAST_ACTIVE, proposal.id)
    txn.helped = True
    was = None if present is None else parameters.text(proposal.key, present.value)
    events.note(txn, "params_activated", **_told(proposal), was=was)
    return f"{proposal.key} {parameters.text(proposal.key, proposal.value)}"


def _named(txn: Txn, proposal_id: int) -> Proposal:
    """A proposal that another record names."""
    return txn.must_read(PROPOSALS, pack_u64(proposal_id))


def _put(txn: Txn, proposal: Proposal) -> None:
    txn.write(PROPOSALS, pack_u64(proposal.id), proposal)


def _count(txn: Txn, by: int) -> None:
    txn.set_number(PARAMETERS_SET, txn.number(PARAMETERS_SET) + by)


def _told(proposal: Proposal) -> dict[str, Any]:
    value = parameters.text(proposal.key, proposal.value)
    return {"proposal": proposal.id, "key": proposal.key, "value": value}
