"""The pages of a selection: all of it, in order, once, and none longer than it may be."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from compute_market.jobs import by_end, holding, jobs, pages
from compute_market.jobs.selection import Selection
from compute_market.records import JOB_STATES, LIVE_STATES, PRIORITIES, Job
from compute_market.store.schema import JOBS
from compute_market.store.txn import Txn
from tests.support.effort import effort
from tests.support.market import START_MS, Market

BUYERS = ("ann", "ann-2", "bob")
PROVIDERS = ("acme", "acm", "far")


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """Some jobs of some parties in every state, a second apart."""
    market = Market(tmp_path_factory.mktemp("crowd") / "market")
    market.configure(slots=6)
    for number, provider in enumerate(PROVIDERS):
        market.post(provider, offer_id=f"of-{provider}", price_per_unit=5 - number)
    market.post("acme", offer_id="small", units=8, price_per_unit=1)
    chance = random.Random(5)
    for number in range(70):
        market.advance(1)
        job_id = f"j{chance.randrange(10**6)}"
        capability = {"gpu": "none has it"} if number % 9 == 0 else {}
        market.submit(
            job_id,
            buyer=BUYERS[number % 3],
            wait=True,
            capability=capability,
            priority=PRIORITIES[number % 5 % 3],
            workload=("transcode", "inference")[number % 2],
            deadline_secs=60 * (number + 2),
            max_price_per_unit=4 + number % 2,
        )
        if number % 3 == 0:
            running = market.view(lambda txn: [job for job in every(txn) if job.state == "active"])
            for job in running[: 2 - number % 2]:
                market.prove(job.job_id) if number % 2 else market.cancel(job.job_id)
    market.advance(62)
    market.update(lambda txn: None)
    waiting = market.view(lambda txn: [job for job in every(txn) if job.state == "queued"])
    for job in waiting[:3]:
        market.update(lambda txn, job_id=job.job_id: holding.hold(txn, job_id))
    found = market.view(every)
    assert {job.state for job in found} == set(JOB_STATES)
    yield market
    market.store.close()


def every(txn: Txn) -> list[Job]:
    """All jobs, in the order of submission."""
    return sorted(txn.records(JOBS), key=lambda job: job.seq)


def wanted(asked: Selection, job: Job, now: int) -> bool:
    """The same question in the words of the fields."""
    placement = job.placement

    def within(second: int | None, since_ms: int | None, until_ms: int | None) -> bool:
        if since_ms is None and until_ms is None:
            return True
        low, high = (since_ms or 0) // 1000, (until_ms or 10**15) // 1000
        return second is not None and low <= second <= high

    return all(
        (
            not asked.states or job.state in asked.states,
            not asked.buyers or job.buyer in asked.buyers,
            not asked.providers or (placement and placement.provider in asked.providers),
            not asked.offer_ids or (placement and placement.offer_id in asked.offer_ids),
            not asked.workloads or job.workload in asked.workloads,
            not asked.priorities or job.priority in asked.priorities,
            not asked.lanes or job.lane in asked.lanes,
            within(job.submitted_at, asked.since_ms, asked.until_ms),
            within(job.ended_at, asked.ended_since_ms, asked.ended_until_ms),
            asked.overdue_in_secs is None
            or (job.state in LIVE_STATES and job.deadline < now + asked.overdue_in_secs),
            not asked.unfunded or (placement is not None and not placement.funded),
            asked.held in (None, job.held),
        )
    )


def collected(market: Market, asked: Selection, limit: int, *, newest_first: bool) -> list[Job]:
    found: list[Job] = []
    walk = None
    while True:
        one, walk = market.view(
            lambda txn, walk=walk: pages.page(txn, asked, walk, limit, newest_first=newest_first)
        )
        assert len(one) <= limit
        found += one
        if walk is None:
            return found


def drawn(chance: random.Random) -> Selection:
    """A selection of a few things."""
    moment = START_MS + 1000 * chance.randrange(80) + chance.randrange(1000)

    def some(*values: str) -> list[tuple[str, ...]]:
        return [tuple(chance.sample(values, chance.choice((1, 1, 2))))]

    fields: dict[str, list[Any]] = {
        "states": [LIVE_STATES, ("active",), ("queued", "completed"), ("failed",), ("pending",)],
        "buyers": some(*BUYERS, "nobody"),
        "providers": some(*PROVIDERS, "nobody"),
        "offer_ids": some("of-acme", "of-far", "small", "none"),
        "workloads": some("transcode", "inference"),
        "priorities": some(*PRIORITIES),
        "lanes": some("industrial", "consumer"),
        "since_ms": [moment],
        "until_ms": [moment + 20_000],
        "ended_since_ms": [moment],
        "ended_until_ms": [moment + 20_000],
        "overdue_in_secs": [0, 600, 3000],
        "unfunded": [True],
        "held": [True, False],
    }
    names = chance.sample(sorted(fields), chance.choice((0, 1, 1, 2, 3)))
    return Selection(**{name: chance.choice(fields[name]) for name in names})


def test_pages_find_what_is_asked_for_once_and_in_order(
    crowd: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(8)
    all_jobs, now = crowd.view(every), crowd.view(lambda txn: txn.now)
    sizes = set()
    for _ in range(effort(150, 5000)):
        monkeypatch.setattr(pages, "LOOKED_AT", chance.choice((1, 2, 7, 30, 1000)))
        monkeypatch.setattr(pages, "KEPT_MAX", chance.choice((0, 5, 1000)))
        asked, limit = drawn(chance), chance.choice((1, 3, 50, 1000))
        newest_first = chance.random() < 0.5
        by_hand = [job for job in all_jobs if wanted(asked, job, now)]
        if asked.is_by_end:
            by_hand.sort(key=lambda job: (job.ended_at, job.job_id))
        if newest_first:
            by_hand.reverse()
        found = collected(crowd, asked, limit, newest_first=newest_first)
        assert [job.job_id for job in found] == [job.job_id for job in by_hand], asked
        sizes.add(len(found))
    assert len(sizes) > 20


def ends_collected(
    market: Market,
    asked: Selection,
    limit: int,
    *,
    newest_first: bool,
    meanwhile: Callable[[], None] = lambda: None,
) -> list[str]:
    found: list[str] = []
    walk = None
    while True:
        one, walk = market.view(
            lambda txn, walk=walk: by_end.page(txn, asked, walk, limit, newest_first=newest_first)
        )
        assert len(one) <= limit
        found += [job.job_id for job in one]
        if walk is None:
            return found
        meanwhile()


def test_pages_by_end_find_what_is_asked_for_once_and_in_order(
    crowd: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(9)
    all_jobs, now = crowd.view(every), crowd.view(lambda txn: txn.now)
    ended = [job.ended_at for job in all_jobs if job.ended_at is not None]
    assert len(set(ended)) < len(ended)
    for _ in range(effort(100, 2000)):
        monkeypatch.setattr(pages, "LOOKED_AT", chance.choice((1, 2, 7, 30, 1000)))
        asked, limit = drawn(chance), chance.choice((1, 3, 50, 1000))
        newest_first = chance.random() < 0.5
        by_hand = [job for job in all_jobs if wanted(asked, job, now)]
        if newest_first:
            by_hand.reverse()
        with_end = [job for job in by_hand if job.ended_at is not None]
        with_end.sort(key=lambda job: job.ended_at, reverse=newest_first)
        by_hand = with_end + [job for job in by_hand if job.ended_at is None]
        found = ends_collected(crowd, asked, limit, newest_first=newest_first)
        assert found == [job.job_id for job in by_hand], asked


def test_page_of_the_last_ends_reads_little_more_than_it_takes(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.post(units=10_000)
    for number in range(60):
        market.submit(f"j{number}")
    for number in range(50):
        market.advance(1)
        market.cancel(f"j{number}")
    read = []
    for way in ("read", "must_read_each"):
        original = getattr(Txn, way)
        monkeypatch.setattr(
            Txn,
            way,
            lambda txn, table, key, original=original: (
                read.extend([key] * (table is JOBS)) or original(txn, table, key)
            ),
        )
    look = partial(by_end.page, asked=Selection(), walk=None, limit=5)
    found, _ = market.view(partial(look, newest_first=True))
    assert [job.job_id for job in found] == ["j49", "j48", "j47", "j46", "j45"]
    assert len(read) == 5


def test_pages_by_end_find_each_job_once_though_some_end_meanwhile(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "LOOKED_AT", 2)
    market.post(units=10_000)
    for newest_first in (False, True):
        ids = [f"{number}-{newest_first}" for number in range(20)]
        for job_id in ids:
            market.submit(job_id)
        for job_id in ids[:6]:
            market.cancel(job_id)
        before = market.view(lambda txn: {job.job_id for job in every(txn)})
        ending = iter(ids[6:])

        def end_one(ending: Iterator[str] = ending) -> None:
            job_id = next(ending, None)
            if job_id is not None:
                market.cancel(job_id)
                market.advance(job_id[0] in "13")

        found = ends_collected(market, Selection(), 3, newest_first=newest_first, meanwhile=end_one)
        assert sorted(found) == sorted(before)


def test_every_finds_all_at_once(crowd: Market) -> None:
    asked = Selection(states=("completed",))
    found = crowd.view(lambda txn: list(pages.every(txn, asked)))
    assert found == [job for job in crowd.view(every) if job.state == "completed"] != []


def test_live_jobs_are_found_without_a_look_at_the_many_that_ended(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "LOOKED_AT", 3)
    market.post(units=10_000)
    market.submit("old")
    for number in range(40):
        market.submit(f"j{number}")
        market.cancel(f"j{number}")
    for number in range(3):
        market.submit(f"new-{number}")
    read = []
    named = jobs.named
    monkeypatch.setattr(
        jobs, "named", lambda txn, job_id: read.append(job_id) or named(txn, job_id)
    )
    named_each = jobs.named_each
    monkeypatch.setattr(
        jobs, "named_each", lambda txn, job_ids: read.extend(job_ids) or named_each(txn, job_ids)
    )
    for newest_first in (False, True):
        read.clear()
        asked = Selection(states=LIVE_STATES)
        found = [job.job_id for job in collected(market, asked, 100, newest_first=newest_first)]
        ids = ["old", "new-0", "new-1", "new-2"]
        assert found == (ids[::-1] if newest_first else ids)
        assert len(read) < 20
    read.clear()
    newest, _ = market.view(lambda txn: pages.page(txn, Selection(), None, 2, newest_first=True))
    assert [job.job_id for job in newest] == ["new-2", "new-1"]
    assert len(read) == 2


def test_a_live_job_is_found_once_though_others_come_and_go_meanwhile(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "LOOKED_AT", 2)
    market.post(units=10_000)
    for number in range(12):
        market.submit(f"j{number}", deadline_secs=100 + number)
    asked = Selection(states=LIVE_STATES)
    for newest_first in (False, True):
        look = partial(pages.page, selection=asked, limit=2, newest_first=newest_first)
        before = set(market.view(lambda txn: list(jobs.live_ids(txn))))
        found: list[str] = []
        gone: set[str] = set()
        walk: pages.Walk | None = None
        for turn in range(1000):
            one, walk = market.view(partial(look, walk=walk))
            found += [job.job_id for job in one]
            if walk is None:
                break
            if turn < 6:
                victim = sorted(before - gone)[turn % 3]
                gone.add(victim)
                market.cancel(victim)
                market.submit(f"n{newest_first}{turn}")
        assert len(found) == len(set(found))
        assert set(found) >= before - gone


def test_an_active_job_is_found_though_others_start_before_it_meanwhile(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "LOOKED_AT", 2)
    market.configure(slots=2)
    market.post(units=10_000)
    for number in range(7):
        market.submit(f"j{number}")
    for job_id in ("j2", "j3"):
        market.update(lambda txn, job_id=job_id: holding.hold(txn, job_id))
    market.configure(slots=5)
    market.update(lambda txn: None)
    asked = Selection(states=("active",))
    found, walk = market.view(lambda txn: pages.page(txn, asked, None, 2))
    assert [job.job_id for job in found] == ["j0", "j1"]
    market.advance(1)
    market.configure(slots=7)
    for job_id in ("j2", "j3"):
        market.update(lambda txn, job_id=job_id: holding.release(txn, job_id))
    while walk is not None:
        more, walk = market.view(lambda txn, walk=walk: pages.page(txn, asked, walk, 2))
        found += more
    assert {"j4", "j5", "j6"} <= {job.job_id for job in found}


def test_jobs_of_a_party_are_found_by_it_after_a_handover(busy: Market) -> None:
    for provider, ids in (("prov", set()), ("other", {"moved", "handed"})):
        asked = Selection(providers=(provider,))
        found = {job.job_id for job in collected(busy, asked, 5, newest_first=True)}
        assert found & {"moved", "handed"} == ids
    asked = Selection(offer_ids=("main",), states=("completed",))
    found_by_offer = collected(busy, asked, 5, newest_first=True)
    assert [job.job_id for job in found_by_offer] == ["owed", "done"]


def test_page_of_many_parties_reads_little_more_than_it_takes(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.post("prov", units=1_000)
    buyers = tuple(f"b{number}" for number in range(10))
    for number in range(60):
        market.submit(f"j{number}", buyer=buyers[number % 10])
    monkeypatch.setattr(pages, "LOOKED_AT", 5)
    read = 0

    def counted(walk: Callable[..., Iterator[object]]) -> Callable[..., Iterator[object]]:
        def each(txn: Txn, *asked: object) -> Iterator[object]:
            nonlocal read
            for entry in walk(txn, *asked):
                read += 1
                yield entry

        return each

    for way in ("scan", "scan_back"):
        monkeypatch.setattr(Txn, way, counted(getattr(Txn, way)))
    asked = Selection(buyers=buyers)
    for newest_first in (False, True):
        read = 0
        found, _ = market.view(
            lambda txn, newest_first=newest_first: pages.page(
                txn, asked, None, 5, newest_first=newest_first
            )
        )
        numbers = range(59, 54, -1) if newest_first else range(5)
        assert [job.job_id for job in found] == [f"j{number}" for number in numbers]
        assert 5 <= read <= 5 + len(buyers)
