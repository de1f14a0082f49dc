"""What a market has been through, played again: its log as a file, or the market itself."""

import gzip
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from compute_market import events
from compute_market.config.settings import DEFAULTS
from compute_market.errors import UsageError
from compute_market.jobs import holding
from compute_market.jobs.cancel import cancel
from compute_market.jobs.prove import prove
from compute_market.jobs.submit import change_offer, post_offer, submit
from compute_market.market import Market
from compute_market.offers import offers, standing
from compute_market.records import replace
from compute_market.requests import CapabilityRequest, JobRequest, OfferChange, OfferRequest
from compute_market.simulation import replay, script, throwaway
from compute_market.simulation.arrivals import DIGEST, slice_of
from compute_market.simulation.replay_records import Replay
from compute_market.simulation.scenario import START_MS
from compute_market.simulation.world import Step, run
from compute_market.store.txn import Txn

GPU = CapabilityRequest(cpu_cores=4, gpu="A")


def job(job_id: str, **fields: Any) -> JobRequest:
    terms: dict[str, Any] = {"buyer": "ann", "max_price_per_unit": 20, "deadline_secs": 300}
    return JobRequest(job_id=job_id, workload="transcode", slices=["a"], **(terms | fields))


def offer(offer_id: str, price: int, **fields: Any) -> OfferRequest:
    terms: dict[str, Any] = {"provider": "prov", "units": 50, "capability": GPU}
    return OfferRequest(offer_id=offer_id, price_per_unit=price, **(terms | fields))


def lived(market: Market, clock: list[int]) -> None:
    """A little of everything, ten seconds apart."""

    def at(secs: int, act: Any) -> None:
        clock[0] = START_MS + secs * 1_000
        market.update(act)

    at(0, lambda txn: post_offer(txn, offer("o-1", 5)))
    at(10, lambda txn: submit(txn, job("j-1", priority="high", capability=GPU), [slice_of(3)]))
    at(20, lambda txn: submit(txn, job("j-2", buyer="bob"), [slice_of(200)], wait=True))
    at(30, lambda txn: submit(txn, job("j-3", buyer="bob"), [slice_of(7)]))
    at(40, lambda txn: prove(txn, "j-1", [(0, DIGEST)]))
    at(50, lambda txn: cancel(txn, "j-3", "client"))
    at(60, lambda txn: submit(txn, job("j-4", max_price_per_unit=1), [slice_of(1)]))  # refused
    at(70, lambda txn: submit(txn, job("j-5"), [slice_of(2)]))  # never proven
    at(80, lambda txn: post_offer(txn, offer("o-2", 9)))
    at(90, lambda txn: offers.withdraw(txn, "o-1"))
    at(100, lambda txn: post_offer(txn, offer("r-1", 30, provider="rival")))
    at(110, lambda txn: offers.withdraw(txn, "r-1"))
    at(400, lambda txn: None)  # j-5 fails


def log_of(market: Market) -> list[str]:
    found = market.view(lambda txn: [events.document(each) for each in events.forward(txn)])
    return [json.dumps(each) for each in found]


@pytest.fixture
def before(tmp_path: Path) -> Any:
    (tmp_path / "before").mkdir()
    clock = [START_MS]
    config = replace(DEFAULTS, settle_mode="dry_run")
    opened = throwaway.open_market(str(tmp_path / "before"), config, lambda: clock[0])
    with opened as market:
        lived(market, clock)
        yield market


def test_replay_of_a_market_finds_what_was_asked_for_and_offered(before: Market) -> None:
    found = before.view(replay.of_market)
    assert (found.start_ms, found.length_secs) == (START_MS, 401)
    jobs = {each.job_id: each for each in found.jobs}
    assert list(jobs) == ["j-1", "j-2", "j-3", "j-4", "j-5"]
    assert [each.at_ms for each in found.jobs] == [10_000, 20_000, 30_000, 60_000, 70_000]
    assert [each.units for each in found.jobs] == [3, 200, 7, 1, 2]
    first = jobs["j-1"]
    assert (first.buyer, first.priority, first.capability) == ("ann", "high", GPU_ASKED)
    assert (first.duration_ms, first.max_price_per_unit) == (30_000, 20)
    assert [name for name, each in jobs.items() if each.waits] == ["j-2"]
    assert (jobs["j-3"].gives_up_ms, jobs["j-3"].duration_ms) == (20_000, 21_000)
    # A refused job is not kept, but what it asked for.
    assert (jobs["j-4"].capability, jobs["j-4"].max_price_per_unit) == (CapabilityRequest(), 1)
    failed = jobs["j-5"]
    assert failed.duration_ms is not None
    assert failed.deadline_secs == 300
    assert failed.duration_ms > 300_000
    assert found.providers == ["prov", "rival"]
    assert [(entry.at_ms - START_MS, told(entry.act)) for entry in found.script] == [
        (0, ("o-1", "prov", 50, 5)),
        (80_000, ("o-2", "prov", 50, 9)),
        (90_000, script.Withdrawn("o-1")),
        (100_000, ("r-1", "rival", 50, 30)),
        (110_000, script.Withdrawn("r-1")),
    ]
    posted = found.script[0].act
    assert isinstance(posted, script.Posted)
    assert posted.request.capability == GPU_ASKED
    assert (replay.unknown(found), found.inferred) == ("", 0)


def told(act: script.Act) -> Any:
    """An offer in short."""
    if not isinstance(act, script.Posted):
        return act
    request = act.request
    return request.offer_id, request.provider, request.units, request.price_per_unit


GPU_ASKED = CapabilityRequest(cpu_cores=4, gpu="A", gpu_count=1)


@pytest.mark.parametrize("packed", [False, True])
def test_replay_of_a_log_finds_what_the_log_says(
    tmp_path: Path, before: Market, packed: bool
) -> None:
    content = "\n".join(log_of(before)).encode()
    path = tmp_path / "log.jsonl"
    path.write_bytes(gzip.compress(content) if packed else content)
    found, whole = replay.of_log(str(path)), before.view(replay.of_market)
    for one, other in zip(found.jobs, whole.jobs, strict=True):
        assert (one.at_ms, one.units, one.buyer, one.duration_ms) == (
            *(other.at_ms, other.units, other.buyer, other.duration_ms),
        )
        assert (one.capability is None) == (one.job_id != "j-4")
    assert found.providers == whole.providers
    assert [told(each.act) for each in found.script] == [told(each.act) for each in whole.script]
    assert "the log says nothing of caps, capabilities" in replay.unknown(found)


def played(
    tmp_path: Path, name: str, found: Replay, *, with_offers: bool = False, **settings: Any
) -> list[str]:
    """What becomes of the jobs, under other settings."""
    told: list[str] = []

    def observe(txn: Txn, step: Step) -> None:
        for each in step.events:
            if each.job_id:
                text = f"{each.job_id} {each.event}"
                told.append(f"{text} {each.offer_id or ''}" if with_offers else text)

    home = tmp_path / name
    home.mkdir()
    scenario = replay.scenario(found, replace(DEFAULTS, **settings))
    outcome = run(
        scenario,
        partial(throwaway.open_market, str(home)),
        observe,
        replay.open_trace(found),
        replay.script(found, settings),
    )
    assert outcome.violations == []
    assert outcome.submitted == len(found.jobs)
    return told


def test_replay_goes_as_it_went_and_otherwise_under_other_settings(
    tmp_path: Path, before: Market
) -> None:
    found = before.view(replay.of_market)
    same = played(tmp_path, "same", found)
    assert "j-1 job_completed" in same
    assert "j-2 job_pending" in same
    assert "j-3 job_cancelled" in same
    assert "j-5 job_failed" in same
    tight = played(
        tmp_path,
        "tight",
        found,
        initial_capacity=10,
        fair_share_cap_ppm=10_000,
        burst_quota_micro=0,
    )
    assert "j-3 job_refused" in tight


OF_JOBS = (
    "job_queued",
    "job_pending",
    "job_refused",
    "job_started",
    "job_completed",
    "job_cancelled",
)


def chosen(told: list[str]) -> list[str]:
    return [each for each in told if each.split()[1] in (*OF_JOBS, "job_failed")]


def by_provider(at: Any) -> None:
    """A provider that cancels falls out of favour, until it is pardoned."""
    plain = {"capability": CapabilityRequest()}
    at(0, lambda txn: post_offer(txn, offer("o-1", 10, **plain)))
    at(10, lambda txn: submit(txn, job("j-1"), [slice_of(1)]))
    at(20, lambda txn: submit(txn, job("j-2"), [slice_of(1)]))
    at(30, lambda txn: cancel(txn, "j-1", "provider"))
    at(40, lambda txn: cancel(txn, "j-2", "provider"))
    at(50, lambda txn: submit(txn, job("j-3"), [slice_of(1)]))  # refused
    at(60, lambda txn: standing.pardon(txn, "prov", 5, "a fire"))
    at(70, lambda txn: submit(txn, job("j-4"), [slice_of(1)]))
    at(80, lambda txn: prove(txn, "j-4", [(0, DIGEST)]))
    at(90, lambda txn: submit(txn, job("j-5", max_price_per_unit=9), [slice_of(1)]))  # refused


def by_terms(at: Any) -> None:
    """Who wins depends on multipliers, directed offers, bonds, and terms before a change."""
    plain = {"capability": CapabilityRequest()}
    at(0, lambda txn: post_offer(txn, offer("a", 10, reputation_multiplier="0.5", **plain)))
    at(1, lambda txn: post_offer(txn, offer("b", 6, provider="pb", **plain)))
    at(2, lambda txn: post_offer(txn, offer("d", 1, provider="pd", job_id="other", **plain)))
    at(3, lambda txn: post_offer(txn, offer("c", 3, provider="pc", consumer_bond=50, **plain)))
    at(10, lambda txn: submit(txn, job("j-1"), [slice_of(1)]))  # a, at 5
    at(11, lambda txn: submit(txn, job("j-2", consumer_bond=60), [slice_of(1)]))  # c, at 3
    at(12, lambda txn: submit(txn, job("j-3", provider_bond_min=2), [slice_of(1)]))
    change = OfferChange("a", reputation_multiplier="1")
    at(20, lambda txn: change_offer(txn, change))
    at(30, lambda txn: submit(txn, job("j-4"), [slice_of(1)]))  # b, at 6
    for secs, name in ((40, "j-1"), (41, "j-2"), (42, "j-4")):
        at(secs, lambda txn, name=name: prove(txn, name, [(0, DIGEST)]))


def by_hand(at: Any) -> None:
    """Jobs are held, released, preferred, and given more time."""
    plain = {"capability": CapabilityRequest()}
    at(0, lambda txn: post_offer(txn, offer("o-1", 5, **plain)))
    for secs, name in ((1, "runs"), (2, "first"), (3, "second"), (4, "third")):
        at(secs, lambda txn, name=name: submit(txn, job(name), [slice_of(1)]))
    at(10, lambda txn: holding.hold(txn, "first"))
    at(11, lambda txn: holding.change(txn, "third", priority="high"))
    at(20, lambda txn: prove(txn, "runs", [(0, DIGEST)]))  # third starts
    at(30, lambda txn: prove(txn, "third", [(0, DIGEST)]))  # second starts
    at(40, lambda txn: holding.change(txn, "second", deadline_secs=400))
    at(50, lambda txn: holding.release(txn, "first"))
    at(420, lambda txn: prove(txn, "second", [(0, DIGEST)]))
    at(430, lambda txn: cancel(txn, "first", "client"))


@pytest.mark.parametrize("life", [by_provider, by_terms, by_hand])
def test_replay_under_the_same_settings_is_what_was(tmp_path: Path, life: Any) -> None:
    clock = [START_MS]
    # All that waits for a slot, which there is one of, does so in the order of the queue.
    settings = {"settle_mode": "dry_run", "slots": 1 if life is by_hand else 64}
    (tmp_path / "lived").mkdir()
    config = replace(DEFAULTS, **settings)
    with throwaway.open_market(str(tmp_path / "lived"), config, lambda: clock[0]) as market:

        def at(secs: int, act: Any) -> None:
            clock[0] = START_MS + secs * 1_000
            market.update(act)

        life(at)
        found = market.view(replay.of_market)
        logged = market.view(lambda txn: [each.event for each in events.forward(txn)])
    del settings["settle_mode"]
    was = [f"{each.job_id} {each.event} {each.offer_id or ''}" for each in logged if each.job_id]
    again = played(tmp_path, "again", found, with_offers=True, **settings)
    assert chosen(again) == chosen(was)


def line(**fields: Any) -> str:
    known = {"seq": 1, "at_ms": START_MS, "event": "deposit"}
    return json.dumps(known | fields)


POSTED = {"event": "offer_posted", "owner": "p", "offer_id": "o"}
QUEUED = {"event": "job_queued", "owner": "b", "job_id": "j"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "this is no event of a log: no JSON: it ends too early"),
        ("[]", "this is no event of a log: expected an object, got a list"),
        ("[" * 30_000, "this is no event of a log"),
        (
            line(event="no such event"),
            "this is no event of a log: event: 'no such event' is none of the ",
        ),
        (line(more=1), "this is no event of a log: unknown field more"),
        (line(seq="1"), "this is no event of a log: seq: expected a whole number, got text"),
        ('{"seq": 1}', "this is no event of a log: at_ms is missing"),
        (line(seq=0), "event 0 comes behind event 0"),
        (line(at_ms=5), "at_ms 5 is no time of a market"),
        (line(at_ms=10**30), "at_ms 1000000000000000000000000000000 is no time"),
        (line(**POSTED), "units is missing"),
        (line(**POSTED, detail={"units": -1}), "units is -1, not within"),
        (line(**POSTED, detail={"units": 1.5}), "units is 1.5, not a whole number"),
        (line(**POSTED, detail={"units": 0}), "units is 0, not within 1…"),
        (line(**POSTED, detail={"units": True}), "units is true, not a whole number"),
        (line(event="mode_changed", detail={"to": 1}), "1 is no mode of settlement"),
        (line(event="job_changed", job_id="j", detail={"priority": 1}), "1 is no priority"),
        (
            line(event="offer_changed", offer_id="o", detail={"reputation_multiplier": "2x"}),
            'reputation_multiplier is "2x", not a decimal',
        ),
        (line(**POSTED, detail={"units": 1, "price_per_unit": 0}), "price_per_unit is 0, not"),
        (line(**QUEUED, detail={"units": 0}), "units is 0, not within 1…"),
        (
            line(**QUEUED, detail={"units": 1, "price_per_unit": "5"}),
            'price_per_unit is "5", not a whole',
        ),
        (line(event="capacity_recorded", detail={"estimate": -1}), "estimate is -1, not within 0…"),
        (line(event="params_activated", detail={"key": "x", "value": "1"}), "KEY: 'x' is none of"),
        (line(event="mode_changed", detail={"to": "odd"}), '"odd" is no mode of settlement'),
        (
            line(event="job_refused", job_id="j", owner="b", detail={"units": 1, "asked": {}}),
            "asked: max_price_per_unit is missing",
        ),
        (line(event="job_changed", job_id="j", detail={"priority": "odd"}), '"odd" is no priority'),
        (line(event="deadline_extended", job_id="j", detail={"by_secs": 0}), "by_secs is 0, not"),
        (line(event="score_adjusted", owner="p", detail={"delta": 2**99}), "delta is 6338"),
        (line(event="tx_admitted", owner="b", detail={"fee": 0, "bytes": 1}), "fee is 0, not"),
        (line(event="tx_admitted", owner="b", detail={"fee": 1}), "bytes is missing"),
        (line(**QUEUED, detail={"units": 2**62}), "units is 4611686018427387904, not within"),
        (line(**QUEUED | {"job_id": "a b"}, detail={"units": 1}), "job_id 'a b' has the character"),
        (line(event="job_queued", job_id="j", detail={"units": 1}), "owner is empty"),
    ],
)
def test_replay_of_a_wrong_log_names_file_and_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f"\n{text}\n")
    with pytest.raises(UsageError) as caught:
        replay.of_log(str(path))
    assert caught.value.message.startswith(f"{path}:2: {expected}")
    assert caught.value.exit_code == 2


def test_replay_of_a_log_without_offers_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(line(seq=1) + "\n" + line(seq=2))
    with pytest.raises(UsageError, match="no offer is posted in it"):
        replay.of_log(str(path))
