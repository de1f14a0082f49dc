"""The world around a market: it lets time pass and has everybody do what the scenario says.

The market is the real one, and every step is one of its changes: what is due first, then what
happens at that instant. Nothing here knows a rule. What became of it all is read from the events
that the market notes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from typing import Literal

from msgspec import Struct

from compute_market import audit
from compute_market.archive.forgetting import Forgetter
from compute_market.clock import Clock
from compute_market.config.settings import Config
from compute_market.engine import Engine
from compute_market.governance import governance
from compute_market.housekeeping import tick
from compute_market.jobs.cancel import By, cancel
from compute_market.jobs.submit import submit
from compute_market.laws import Violation
from compute_market.records import Event, Refused, Token, replace
from compute_market.settlement import ledger, modes
from compute_market.simulation.arrivals import Arrival, OpenTrace, Source, sources
from compute_market.simulation.providers import Provider, providers
from compute_market.simulation.scenario import ParameterChange, Scenario
from compute_market.simulation.script import Entry, plan, record_capacity
from compute_market.simulation.stage import Failed, Stage
from compute_market.simulation.traffic import Traffic
from compute_market.simulation.work import FOLLOWED, Work
from compute_market.store.txn import Txn

# Actions of one instant that go into one change of the market, as those of a bulk command do.
STEP_ACTIONS_MAX = 1_000
# How long ended jobs stay: a run of any length takes no more room than its last hour.
KEPT_SECS = 3_600
# After how many epochs a market whose settlement is armed at the start turns real.
ARMED_EPOCHS = 2

# Opens an empty market under settings and a clock, which says when it is created.
OpenMarket = Callable[[Config, Clock], AbstractContextManager[Engine]]


class Step(Struct, frozen=True, gc=False):
    """What one change of the market was; `is_sample` when it is time to take a sample."""

    at_ms: int
    events: Sequence[Event]  # in order, those of what was due included
    failed: Sequence[Failed]
    is_sample: bool


# Looks at the end of every step, in its transaction. It must not write.
Observer = Callable[[Txn, Step], None]


class Outcome(Struct, frozen=True, gc=False):
    """What a whole run came to."""

    steps: int  # changes of the market
    submitted: int  # jobs that somebody asked the market to take
    missed: int  # of which nobody could ask it in an outage
    ended_ms: int
    violations: list[Violation]  # of the audit at the end


def run(
    scenario: Scenario,
    open_market: OpenMarket,
    observe: Observer | None = None,
    open_trace: OpenTrace | None = None,
    script: Sequence[Entry] | None = None,
) -> Outcome:
    """Play a scenario from its start to its end, and audit the market then.

    With a `script` the providers are called like their groups, and offer what it says and nothing
    else.
    The same scenario gives the same steps on every machine. Raises what the opening functions
    raise, ValueError for a trace without `open_trace`, and IntegrityError for a store that breaks.
    """
    mode: Literal["dry_run", "real"] = "real" if scenario.settlement == "real" else "dry_run"
    config = replace(scenario.config, settle_mode=mode)
    world = _World(scenario, observe, sources(scenario, open_trace), script)
    with open_market(config, lambda: world.now_ms) as market:
        world.play(market)
        violations = market.view(lambda txn: list(audit.check(txn)))
    return Outcome(world.steps, world.submitted, world.missed, world.now_ms, violations)


class _World:
    """Everybody there is, and what time it is."""

    def __init__(
        self,
        scenario: Scenario,
        observe: Observer | None,
        arrivals: list[Source],
        script: Sequence[Entry] | None,
    ) -> None:
        self.now_ms = scenario.start_ms
        self.steps = 0
        self.submitted = 0
        self.missed = 0
        self._scenario = scenario
        self._observe = observe
        self._stage = Stage()
        if script is None:
            everybody = providers(self._stage, scenario)
        else:
            everybody = (
                Provider(self._stage, scenario.seed, group, group.name)
                for group in scenario.providers
            )
        self._providers = {each.name: each for each in everybody}
        self._work = Work(self._stage, self._providers)
        self._forgetter = Forgetter()
        self._funded: set[str] = set()  # buyers that have been paid what they come with
        self._seen = 0  # events of the present step that were followed
        self._sample_is_due = False
        for provider in self._providers.values():
            if script is None:
                self._plan_stay(provider)
            else:
                self._stage.plan(scenario.start_ms, provider.settle_in)
        plan(self._stage, self._providers, script or ())
        for sample in scenario.capacity:
            found = partial(record_capacity, sample.units_per_second)
            self._stage.plan(scenario.at_ms(sample.at_secs), found)
        for change in scenario.parameters:
            self._stage.plan(scenario.at_ms(change.at_secs), partial(self._govern, change))
        if scenario.settlement == "armed":
            self._stage.plan(scenario.start_ms, _arm)
        self._consumers = [Traffic(self._stage, scenario, each) for each in scenario.consumers]
        self._stage.plan(scenario.start_ms, self._sample)
        self._stage.plan(scenario.start_ms, self._tick)
        for source in arrivals:
            self._next_arrival(source)

    def play(self, market: Engine) -> None:
        """Let everything happen that does before the end, and then what is due at the end."""
        end_ms = self._scenario.end_ms
        while (at_ms := self._stage.next_ms()) is not None and at_ms < end_ms:
            until_ms = self._out_until(at_ms) if self._scenario.outages else None
            if until_ms is not None:
                self._stage.put_off(at_ms, until_ms)
                continue
            self.now_ms = at_ms
            self._step(market, STEP_ACTIONS_MAX)
        self.now_ms = end_ms
        self._sample_is_due = True
        self._step(market, 0)

    def _step(self, market: Engine, limit: int) -> None:
        """One change of the market: what is due now, and at most so much of what is to happen."""

        def change(txn: Txn) -> None:
            self._seen, noted = 0, txn.noted
            if noted:
                self._follow(txn)
            take, now_ms = self._stage.take, self.now_ms
            for _ in range(limit):
                act = take(now_ms)
                if act is None:
                    break
                act(txn)
                if self._seen < len(noted):
                    self._follow(txn)
            if self._observe is not None:
                failed = self._stage.failed
                self._observe(txn, Step(txn.now_ms, txn.noted, failed, self._sample_is_due))

        self.steps += 1
        market.update(change)
        self._stage.failed = []
        self._sample_is_due = False

    def _out_until(self, at_ms: int) -> int | None:
        """When the outage is over that an instant falls into; None if it falls into none."""
        for outage in self._scenario.outages:
            from_ms = self._scenario.at_ms(outage.from_secs)
            until_ms = from_ms + outage.length_secs * 1_000
            if from_ms <= at_ms < until_ms:
                return until_ms
        return None

    def _follow(self, txn: Txn) -> None:
        """Have everybody do what follows from what the market has noted since."""
        noted, follow = txn.noted, self._work.follow
        for event in islice(noted, self._seen, None):  # More are noted meanwhile.
            if event.event in FOLLOWED:
                follow(txn, event)
        self._seen = len(noted)

    # What happens by the clock.

    def _govern(self, change: ParameterChange, txn: Txn) -> None:
        proposal = governance.propose(txn, change.key, change.parsed())
        self._stage.attempt("approve", change.key, lambda: governance.approve(txn, proposal.id))

    def _sample(self, txn: Txn) -> None:
        self._sample_is_due = True
        self._stage.plan(txn.now_ms + self._scenario.sample_secs * 1_000, self._sample)

    def _tick(self, txn: Txn) -> None:
        tick(txn, scrub_limit=0)  # Nothing comes to be damaged in a simulation.
        self._forgetter.forget(txn, max(0, txn.now - KEPT_SECS))
        self._stage.plan(txn.now_ms + self._scenario.tick_secs * 1_000, self._tick)

    # Buyers.

    def _next_arrival(self, source: Source) -> None:
        arrival = next(source, None)
        if arrival is not None:
            at_ms = arrival.at_ms if arrival.at_ms > self.now_ms else self.now_ms
            miss = partial(self._miss, source)
            self._stage.plan(at_ms, partial(self._arrive, source, arrival), miss)

    def _miss(self, source: Source) -> None:
        self.missed += 1
        self._next_arrival(source)

    def _arrive(self, source: Source, arrival: Arrival, txn: Txn) -> None:
        self._next_arrival(source)
        self.submitted += 1
        request = arrival.request
        if request.buyer not in self._funded:
            self._funded.add(request.buyer)
            money: dict[Token, int] = {"CT": arrival.ct, "IT": arrival.it}
            self._stage.attempt(
                "deposit",
                request.buyer,
                lambda: ledger.tap(txn, "deposit", request.buyer, money, None),
            )
        job_id = request.job_id
        self._work.expect(arrival)
        verdict = self._stage.attempt(
            "submit", job_id, lambda: submit(txn, request, arrival.slices, wait=arrival.waits)
        )
        if verdict is None or isinstance(verdict, Refused):
            self._work.forget(job_id)
        elif arrival.gives_up_ms is not None:
            give_up = partial(self._give_up, job_id, arrival.given_up_by)
            self._stage.plan(txn.now_ms + arrival.gives_up_ms, give_up)

    def _give_up(self, job_id: str, by: By, txn: Txn) -> None:
        if self._work.is_alive(job_id):
            self._stage.attempt("cancel", job_id, lambda: cancel(txn, job_id, by))

    # Providers.

    def _plan_stay(self, provider: Provider) -> None:
        """Plan when a provider comes, when its price changes, and when it goes for good."""
        group, at_ms = provider.group, self._scenario.at_ms
        self._stage.plan(at_ms(group.from_secs), partial(self._come, provider))
        for number, change in enumerate(group.price_changes):
            reprice = partial(provider.change_price, number)
            self._stage.plan(at_ms(change.at_secs), reprice)
        if group.until_secs is not None:
            self._stage.plan(at_ms(group.until_secs), partial(self._leave, provider))

    def _come(self, provider: Provider, txn: Txn) -> None:
        if provider.has_left:
            return
        provider.come(txn)
        self._work.resume(txn.now_ms, provider)
        if provider.group.up_secs is not None:
            self._stage.plan(txn.now_ms + provider.stay_ms(), partial(self._go, provider))

    def _go(self, provider: Provider, txn: Txn) -> None:
        if provider.has_left:
            return
        self._close(provider, txn)
        self._stage.plan(txn.now_ms + provider.away_ms(), partial(self._come, provider))

    def _leave(self, provider: Provider, txn: Txn) -> None:
        provider.has_left = True
        self._close(provider, txn)

    def _close(self, provider: Provider, txn: Txn) -> None:
        provider.go(txn)
        if provider.group.leaving == "pauses":
            self._work.pause(txn.now_ms, provider)
        elif provider.group.leaving == "cancels":
            self._work.cancel_all(txn, provider)


def _arm(txn: Txn) -> None:
    modes.arm(txn, ARMED_EPOCHS * txn.config.epoch_blocks)
