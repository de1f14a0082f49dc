"""The consumers of a simulated world, whose fees are what the comfort guard looks at."""

from collections.abc import Iterator

from compute_market.admission import mempool
from compute_market.simulation.arrivals import instants
from compute_market.simulation.draws import Amounts, Stream, draw
from compute_market.simulation.scenario import Consumers, Scenario
from compute_market.simulation.stage import Stage
from compute_market.store.txn import Txn


class Traffic:
    """The transactions of one group of consumers, each planned as the one before it comes."""

    def __init__(self, stage: Stage, scenario: Scenario, group: Consumers) -> None:
        self._stage = stage
        self._group = group
        self._draws = Stream(scenario.seed, f"transactions of {group.name}")
        when = Stream(scenario.seed, f"arrivals of {group.name}")
        self._instants: Iterator[int] = instants(scenario, group.arrivals, when)
        changes = sorted(group.fee_changes, key=lambda change: change.at_secs)
        self._fees = [(scenario.at_ms(change.at_secs), change.fee) for change in changes]
        self._next()

    def _next(self) -> None:
        at_ms = next(self._instants, None)
        if at_ms is not None:
            self._stage.plan(at_ms, self._send, self._next)

    def _send(self, txn: Txn) -> None:
        self._next()
        sender = f"{self._group.name}-{1 + self._draws.below(self._group.count)}"
        fee, size = draw(self._draws, self._fee(txn.now_ms)), draw(self._draws, self._group.bytes)
        mempool.submit(txn, sender, fee, size)

    def _fee(self, now_ms: int) -> Amounts:
        found = self._group.fee
        for from_ms, fee in self._fees:
            if from_ms <= now_ms:
                found = fee
        return found
