"""What happens beside the jobs in a market that is played again, each thing at its instant."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from msgspec import Struct

from compute_market.admission import capacity, mempool
from compute_market.governance import governance
from compute_market.jobs import holding, jobs
from compute_market.jobs.submit import change_offer
from compute_market.offers import offers, standing
from compute_market.records import Priority
from compute_market.requests import OfferChange, OfferRequest
from compute_market.settlement import modes
from compute_market.simulation.providers import Provider
from compute_market.simulation.stage import Stage
from compute_market.store.txn import Txn


class Posted(Struct, frozen=True, gc=False):
    """An offer, of one of the providers of the scenario."""

    request: OfferRequest


class Withdrawn(Struct, frozen=True, gc=False):
    offer_id: str


class Changed(Struct, frozen=True, gc=False):
    """Other terms of an offer."""

    request: OfferChange


class Capacity(Struct, frozen=True, gc=False):
    """From now on the estimate is so many units per second."""

    units_per_second: int


class InForce(Struct, frozen=True, gc=False):
    """A parameter comes into force, with the value as `Config` holds it."""

    key: str
    value: int


class RolledBack(Struct, frozen=True, gc=False):
    """The parameter that came into force last goes back."""

    key: str


class Turned(Struct, frozen=True, gc=False):
    """The mode of settlement."""

    to: Literal["dry_run", "real"]


class Sent(Struct, frozen=True, gc=False):
    """A consumer transaction."""

    sender: str
    fee: int
    bytes: int


class Held(Struct, frozen=True, gc=False):
    job_id: str


class Released(Struct, frozen=True, gc=False):
    job_id: str


class Preferred(Struct, frozen=True, gc=False):
    """Another priority of a job."""

    job_id: str
    priority: Priority


class Extended(Struct, frozen=True, gc=False):
    """A later deadline of a job."""

    job_id: str
    by_secs: int


class Adjusted(Struct, frozen=True, gc=False):
    """A score that is moved by other things than the outcomes of jobs."""

    provider: str
    delta: int


OfJob = Held | Released | Preferred | Extended
Act = (
    Posted
    | Withdrawn
    | Changed
    | Capacity
    | InForce
    | RolledBack
    | Turned
    | Sent
    | Adjusted
    | OfJob
)


class Entry(Struct, frozen=True, gc=False):
    at_ms: int  # unix time
    act: Act


def plan(stage: Stage, providers: dict[str, Provider], script: Sequence[Entry]) -> None:
    """Have all of it happen: of what happens at one instant, in the order of the script."""
    for entry in script:
        stage.plan(entry.at_ms, partial(_play, stage, providers, entry.act))


def record_capacity(units_per_second: int, txn: Txn) -> None:
    """Have the estimate be what one sample says: with as many as it is made of."""
    for _ in range(capacity.SAMPLES_KEPT):
        capacity.record(txn, units_per_second)


def _play(stage: Stage, providers: dict[str, Provider], act: Act, txn: Txn) -> None:
    match act:
        case Posted(request):
            providers[request.provider].post(txn, request)
        case Withdrawn(offer_id):
            stage.attempt("withdraw", offer_id, lambda: offers.withdraw(txn, offer_id))
        case Changed(asked):
            stage.attempt("change", asked.offer_id, lambda: change_offer(txn, asked))
        case Capacity(units_per_second):
            record_capacity(units_per_second, txn)
        case InForce(key, value):
            proposal = governance.propose(txn, key, value)
            stage.attempt(
                "approve", key, lambda: governance.approve(txn, proposal.id, at_once=True)
            )
        case RolledBack(key):
            stage.attempt("roll back", key, lambda: governance.roll_back(txn))
        case Turned("dry_run"):
            modes.to_dry_run(txn, "replayed")
        case Turned():
            if not modes.is_real(txn):
                modes.to_dry_run(txn, "replayed")
                stage.attempt("arm", "", lambda: modes.arm(txn, 0))
        case Sent(sender, fee, size):
            mempool.submit(txn, sender, fee, size)
        case Adjusted(provider, delta):
            standing.pardon(txn, provider, delta, "replayed")
        case _:
            _play_on_job(stage, act, txn)


def _play_on_job(stage: Stage, act: OfJob, txn: Txn) -> None:
    """What happens to a live job, which may have ended, or never have been let in, this time."""
    job_id = act.job_id
    match act:
        case Held():
            stage.attempt("hold", job_id, lambda: holding.hold(txn, job_id))
        case Released():
            stage.attempt("release", job_id, lambda: holding.release(txn, job_id))
        case Preferred(_, priority):
            stage.attempt("set", job_id, lambda: holding.change(txn, job_id, priority=priority))
        case Extended(_, by_secs):
            stage.attempt("set", job_id, lambda: _extend(txn, job_id, by_secs))


def _extend(txn: Txn, job_id: str, by_secs: int) -> None:
    holding.change(txn, job_id, deadline=jobs.get(txn, job_id).deadline + by_secs)
