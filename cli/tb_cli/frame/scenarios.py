"""What a simulation is to run: a scenario from a file, a trace or a log, and its variants."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from compute_market.amounts import AMOUNT_MAX
from compute_market.config import places
from compute_market.config.settings import DEFAULTS
from compute_market.errors import UsageError, file_error
from compute_market.records import replace
from compute_market.simulation import openb, traces
from compute_market.simulation import replay as replays
from compute_market.simulation.arrivals import OpenTrace
from compute_market.simulation.scenario import Arrivals, Buyers, Providers, Scenario
from compute_market.simulation.scenario_files import scenario_of
from compute_market.simulation.script import Entry
from compute_market.simulation.variations import (
    Change,
    combinations,
    repeated,
    scenario_with,
)
from compute_market.text import printable
from tb_cli.frame import installed
from tb_cli.frame.files import directory_of
from tb_cli.frame.lines import source_of
from tb_cli.frame.played_files import readable, replayed
from tb_cli.frame.render import note

RUNS_MAX = 10_000
_SIZE_MAX = 2**20
_FIRST = "steady_load"  # of those that come with the tool
_SUFFIX = ".toml"
_STDIN = "-"
# Steps by the clock, and samples, of a trace that no scenario says otherwise of.
_STEPS = 2_000
_STEP_SECS = 60
# Of the buyers of a trace, which says nothing of money: they are short of none.
_MONEY = 10**15
# What a provider has beside the time that a job of a trace took, where nobody says otherwise.
_BESIDE_SECS = 3_600
# The bounds of these settings.
_CAPACITY_MAX = 1_000_000_000
_SLOTS_MAX = 1_000_000
# What is there before a trace, its nodes or a log take its place.
_PLACE: dict[str, Any] = {"providers": [{"name": "farm"}]}


class Given(Struct, frozen=True):
    """What the command line asks for, beside variants."""

    path: str | None  # of a scenario, or the name of one
    trace: str | None = None
    nodes: str | None = None
    replay: str | None = None
    seed: int | None = None


class Variant(Struct, frozen=True):
    """A scenario as it is to be run."""

    name: str
    scenario: Scenario
    open_trace: OpenTrace
    changes: tuple[Change, ...] = ()
    script: list[Entry] | None = None  # what happens beside, where a log says it
    note: str = ""  # what the operator should know of it
    files: tuple[str, ...] = ()  # that it is made of


class _Base(Struct, frozen=True):
    """What all variants begin with."""

    name: str
    document: dict[str, Any]
    open_trace: OpenTrace
    filled: Callable[[Scenario], Scenario]  # with what is no matter of its file
    instead: dict[str, str]  # key that is replaced, to the option that says what it is
    script: Callable[[Sequence[Change]], list[Entry] | None] = lambda _: None
    note: str = ""
    files: tuple[str, ...] = ()
    last_secs: int = 0  # when the last job of its traces is submitted


def variants(given: Given, parameters: Sequence[str], seeds: int) -> list[Variant]:
    """Each combination of the parameters with each of the seeds.

    Raises UsageError, for a mistake in a file with its line and key.
    """
    combined = combinations(parameters)
    if len(combined) * seeds > RUNS_MAX:
        raise UsageError(f"{len(combined)} combinations with {seeds} seeds are above {RUNS_MAX}")
    base = _base(given)
    for key, _ in combined[0]:
        _check_matters(base, key)
    found = []
    for changes in combined:
        scenario = base.filled(scenario_with(base.document, changes))
        script = base.script(changes)
        first = scenario.seed if given.seed is None else given.seed
        if first + seeds - 1 > AMOUNT_MAX:
            raise UsageError(f"--seeds: {seeds} seeds from {first} on are above {AMOUNT_MAX}")
        found += [
            Variant(
                base.name,
                replace(scenario, seed=first + n),
                base.open_trace,
                changes,
                script,
                base.note or _of_the_rest(base, scenario),
                base.files,
            )
            for n in range(seeds)
        ]
    for key, value in repeated(parameters):
        note(f"--param {printable(key)}: {printable(value)} is given twice, and tried once")
    return found


def _of_the_rest(base: _Base, scenario: Scenario) -> str:
    """What to say of jobs of a trace that come when the scenario has ended."""
    if base.last_secs < scenario.length_secs:
        return ""
    return (
        f"the trace goes on until second {base.last_secs} and the scenario ends after "
        f"{scenario.length_secs}: jobs behind that are left out"
    )


def file_of(name: str | None) -> str:
    """The text of a scenario that comes with the tool, of the first one without a name.

    Raises UsageError for any other name.
    """
    with open(_shipped(name or _FIRST), encoding="utf-8") as file:
        return file.read()


def _check_matters(base: _Base, key: str) -> None:
    """Raises UsageError for a key, or one of a group, that something else takes the place of."""
    name, dot, _ = key.partition(".")
    for kind, spelling in base.instead.items():
        groups = base.document.get(kind, ())
        if key == kind or (dot and any(group["name"] == name for group in groups)):
            raise UsageError(f"--param {printable(key)}: {spelling} says what there is of {kind}")


def _base(given: Given) -> _Base:
    if given.replay is not None:
        return _of_log(given, given.replay)
    trace = None if given.trace is None else readable(given.trace)
    extent = None
    files = [each for each in (given.path, given.trace, given.nodes) if each is not None]
    last_secs = 0
    if trace is not None:
        try:
            extent = traces.extent(trace.path)
        except UsageError as error:
            raise trace.told(error) from error
        last_secs = extent.last_secs
    if given.path is not None:
        source, content = _content(given.path)
        document, lines = places.read(content, source)
        sound = scenario_of(document, lines, source)  # What is wrong with the file is told of it.
        name = os.path.basename(source).removesuffix(_SUFFIX)
        directory = directory_of(_STDIN if given.path == _STDIN else source)
        if trace is None:
            for path, until_secs in _checked_traces(sound, lines, source, directory):
                files.append(path)
                last_secs = max(last_secs, until_secs)
    else:
        if trace is None or extent is None or given.nodes is None:
            raise UsageError("SCENARIO is missing", hint="or give --trace and --nodes, or --replay")
        name, document, directory = os.path.basename(trace.name), _timed(extent.length_secs), ""
    nodes = None if given.nodes is None else _nodes(given.nodes)
    document = _sized(document, extent, nodes)

    def filled(scenario: Scenario) -> Scenario:
        if nodes is not None:
            # All that a node can do as long as this lasts.
            offered = openb.offering(nodes, scenario.length_secs)
            scenario = replace(scenario, providers=offered)
        if trace is not None:
            arrived = Arrivals(process="trace", file=trace.path)
            buyers = Buyers(name="trace", arrivals=arrived, ct=_MONEY, it=_MONEY)
            scenario = replace(scenario, buyers=[buyers])
        return scenario

    instead = {} if nodes is None else {"providers": "--nodes"}
    instead |= {} if trace is None else {"buyers": "--trace"}
    return _Base(
        name,
        document,
        traces.opener(directory),
        filled,
        instead,
        files=tuple(files),
        last_secs=last_secs,
    )


def _sized(
    document: dict[str, Any], extent: traces.Extent | None, nodes: list[Providers] | None
) -> dict[str, Any]:
    """A document whose settings fit a trace and its nodes, unless it sets them itself.

    Deadlines may be as far away as its longest job needs; the market does what the nodes can, and
    has a slot for each of their cores.
    """
    config: dict[str, Any] = dict(document.get("config", {}))
    if extent is not None:
        longest_secs = extent.longest_secs + _BESIDE_SECS
        if longest_secs > DEFAULTS.deadline_max_secs:
            config.setdefault("deadline_max_secs", longest_secs)
    if nodes is not None:
        cores = openb.cores_of(nodes)
        config.setdefault("initial_capacity", min(cores, _CAPACITY_MAX))
        scheduler = config.get("scheduler", {})
        slots = max(DEFAULTS.slots, min(cores, _SLOTS_MAX))
        config["scheduler"] = {"slots": slots} | scheduler
    return document | {"config": config}


def _nodes(path: str) -> list[Providers]:
    nodes = readable(path)
    try:
        return openb.nodes(nodes.path)
    except UsageError as error:
        raise nodes.told(error) from error


def _checked_traces(
    scenario: Scenario, lines: dict[places.Place, int], source: str, directory: str
) -> Iterator[tuple[str, int]]:
    """Read the traces that a scenario names: what is wrong with one is told of its key as well.

    Each file, and the second of the scenario when its last job is submitted; 0 where the group
    itself says when to end.
    """
    for number, group in enumerate(scenario.buyers):
        found = group.arrivals
        if found.file is None:
            continue
        place: places.Place = ("buyers", number, "arrivals", "file")
        line = next(lines[place[:end]] for end in range(4, 0, -1) if place[:end] in lines)
        try:
            path = os.path.join(directory, found.file)
            extent = traces.extent(path, found.format)
        except UsageError as error:
            raise UsageError(
                f"{source}:{line}: buyers[{number}].arrivals.file: {error.message}", hint=error.hint
            ) from error
        yield path, found.from_secs + extent.last_secs if found.until_secs is None else 0


def _of_log(given: Given, path: str) -> _Base:
    """What a log tells, once more. A scenario beside it would say what the log does."""
    for name in ("path", "trace", "nodes"):
        if getattr(given, name) is not None:
            shown = "SCENARIO" if name == "path" else f"--{name}"
            raise UsageError(f"--replay and {shown} do not go together: the log says who did what")
    log, settings = replayed(path)
    document = _timed(log.length_secs) | {"config": settings}
    document["settlement"] = "real" if log.is_real else "dry_run"

    def filled(scenario: Scenario) -> Scenario:
        told = replays.scenario(log, scenario.config, seed=scenario.seed)
        return replace(
            scenario,
            providers=told.providers,
            buyers=told.buyers,
            start_ms=told.start_ms,
        )

    return _Base(
        _named(path),
        document,
        replays.open_trace(log),
        filled,
        dict.fromkeys(("providers", "buyers", "start_ms"), "--replay"),
        lambda changes: replays.script(log, [key for key, _ in changes]),
        replays.unknown(log),
        (path,),
    )


def _named(path: str) -> str:
    """What a report calls what was played."""
    return os.path.basename(os.path.abspath(source_of(path)))


def _timed(length_secs: int) -> dict[str, Any]:
    """The document of a scenario of which nothing is known but how long it takes."""
    step_secs = max(_STEP_SECS, length_secs // _STEPS)
    steps = {"tick_secs": step_secs, "sample_secs": step_secs}
    return _PLACE | {"length_secs": max(1, length_secs)} | steps


def _content(path: str) -> tuple[str, bytes]:
    """What a scenario is called in messages, and its text.

    A word that names no file may be one of the scenarios that come with the tool.
    """
    if path == _STDIN:
        from tb_cli.frame.lines import standard_input

        return "stdin", _bounded(path, standard_input().read(_SIZE_MAX + 1))
    source = path
    if os.sep not in path and not path.endswith(_SUFFIX) and not os.path.exists(path):
        source = _shipped(path)
    try:
        with open(source, "rb") as file:
            return source, _bounded(path, file.read(_SIZE_MAX + 1))
    except ValueError as error:
        raise UsageError(f"{path}: not a path") from error
    except OSError as error:
        raise file_error(path, error) from error


def _bounded(path: str, content: bytes) -> bytes:
    if len(content) > _SIZE_MAX:
        raise UsageError(f"{path}: larger than {_SIZE_MAX} bytes")
    return content


def _shipped(name: str) -> str:
    """The path of a scenario that comes with the tool. Raises UsageError for any other name."""
    directory = installed.directory("scenarios", "sim/compute_market", f"{_FIRST}{_SUFFIX}")
    names = sorted(
        each.removesuffix(_SUFFIX) for each in os.listdir(directory) if each.endswith(_SUFFIX)
    )
    if name not in names:
        from difflib import get_close_matches

        near = get_close_matches(name, names, 1)
        raise UsageError(
            f"{name}: no such file, and no such scenario",
            hint=f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}",
        )
    return os.path.join(directory, f"{name}{_SUFFIX}")
