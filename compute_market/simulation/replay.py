"""What a market has been through, to be played again under other settings: its own log.

The log says who asked for what when, what it took and what it cost. What a job or an offer was
beside that, its capability, its cap and its deadline, is with the market itself, and so known only
where its home, or a copy of it, is at hand.
"""

from collections.abc import Collection
from functools import partial
from typing import Final, NoReturn

import msgspec

from compute_market import events
from compute_market.config.settings import Config
from compute_market.errors import UsageError
from compute_market.field_errors import field_error, no_json
from compute_market.jobs import jobs
from compute_market.offers import offers
from compute_market.simulation.arrivals import OpenTrace, Source
from compute_market.simulation.recorder import Recorder
from compute_market.simulation.replay_records import Line, Replay
from compute_market.simulation.scenario import Arrivals, Buyers, Providers, Scenario
from compute_market.simulation.script import Capacity, Entry, InForce, RolledBack, Turned
from compute_market.simulation.trace_jobs import arrivals
from compute_market.simulation.trace_lines import fail, lines
from compute_market.store.txn import Txn
from compute_market.text import quoted

GROUP: Final = "log"
# That nobody runs out of, nor all of them together of what can be counted.
_MONEY: Final = 10**12
_HINT: Final = "`tb-cli log --jsonl` prints what is wanted here"


def of_log(path: str, name: str | None = None) -> Replay:
    """What a log says that was printed with `log --jsonl`, the oldest event first.

    Raises TraceError for a line that is no event, or out of order.
    """
    found = Recorder(partial(fail, path))
    last = 0
    for number, text in lines(path):
        try:
            line = msgspec.json.decode(text, type=Line)
        except msgspec.ValidationError as error:
            wrong = field_error("this is no event of a log", str(error), Line)
            fail(path, number, wrong.message, wrong.hint or _HINT)
        except (msgspec.DecodeError, RecursionError) as error:
            fail(path, number, f"this is no event of a log: {no_json(error)}", _HINT)
        if line.seq <= last:
            fail(path, number, f"event {line.seq} comes behind event {last}")
        last = line.seq
        found.take(number, line)
    return found.replay(quoted(name or path))


def of_market(txn: Txn) -> Replay:
    """What the log of a market says, and what its jobs and offers were. Changes nothing."""

    def problem(number: int, text: str) -> NoReturn:
        raise UsageError(f"event {number} of the log: {text}")

    found = Recorder(problem, partial(jobs.find, txn), partial(offers.find, txn))
    for logged in events.forward(txn):
        event = logged.event
        line = Line(
            logged.seq,
            logged.at_ms,
            event.event,
            event.job_id,
            event.offer_id,
            event.owner,
            event.detail,
        )
        found.take(logged.seq, line)
    return found.replay("the log")


def scenario(replay: Replay, config: Config, *, seed: int = 1) -> Scenario:
    """A scenario of what was, under settings as they might have been.

    Nobody is short of money in it: the log does not say who had how much when it began.
    """
    arrived = Arrivals(process="trace", file=GROUP)
    buyers = Buyers(name=GROUP, arrivals=arrived, ct=_MONEY, it=_MONEY)
    return Scenario(
        length_secs=replay.length_secs,
        providers=[
            Providers(name=name, restocks=False, unit_ms=replay.unit_ms, ct=_MONEY)
            for name in replay.providers
        ],
        buyers=[buyers],
        seed=seed,
        settlement="real" if replay.is_real else "dry_run",
        start_ms=replay.start_ms,
        config=config,
    )


def script(replay: Replay, tried: Collection[str] = ()) -> list[Entry]:
    """What happened beside the jobs, but for what decides on keys whose values are being tried."""

    def stands(entry: Entry) -> bool:
        act = entry.act
        if isinstance(act, InForce | RolledBack):
            return act.key not in tried
        if isinstance(act, Capacity):
            return "initial_capacity" not in tried
        return not (isinstance(act, Turned) and "settlement" in tried)

    return [entry for entry in replay.script if stands(entry)]


def unknown(replay: Replay) -> str:
    """What the replay had to assume, in one line; empty if nothing."""
    told = []
    if not replay.terms_known:
        told.append(
            "of jobs that were let in, the log says nothing of caps, capabilities, priorities, "
            "lanes, deadlines and bonds, and of offers nothing of their terms but units and price: "
            "the defaults are taken; a home instead of its log knows them"
        )
    if replay.inferred:
        told.append(
            f"offers posted before the log begins: {replay.inferred}, taken to be of as many units "
            "as its jobs used"
        )
    if replay.imports:
        told.append(f"files of scores that were imported: {replay.imports}, left out")
    return "; ".join(told)


def open_trace(replay: Replay) -> OpenTrace:
    """What opens the trace of such a scenario."""

    def opened(scenario: Scenario, group: Buyers) -> Source:
        return arrivals(scenario, group, iter(replay.jobs))

    return opened
