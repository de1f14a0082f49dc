"""Proposals and parameters as they are stored; see `records`.

Values are whole numbers as `Config` holds them: ratios in ppm, units in millionths.
"""

from typing import Literal, get_args

from msgspec import Struct

ProposalState = Literal["proposed", "approved", "active", "rolled_back"]
PROPOSAL_STATES: tuple[ProposalState, ...] = get_args(ProposalState)


class Proposal(Struct, frozen=True, array_like=True, gc=False):
    """A value that somebody wants a parameter to have.

    Active ones lie one upon the other, in the order in which they came into force. One that another
    of its key has replaced stays active: it is in force again when the other is rolled back.
    """

    id: int
    key: str
    value: int
    state: ProposalState
    proposed_ms: int
    approval: int = 0  # its number among approvals, 0 before
    activates_at: int = 0  # height, fixed when it is approved
    # Once it is active, ids of active proposals, 0 for none:
    before: int = 0  # the one it has replaced, of the same key
    below: int = 0  # the one that came into force last before it, of any key


class Parameter(Struct, frozen=True, array_like=True, gc=False):
    """A value that is in force by a proposal."""

    value: int
    proposal: int  # its id
