"""Matching: what is judged, who wins, what a failure is called, and how little of it is read."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compute_market.jobs import drafts
from compute_market.offers import offers, posting
from compute_market.offers.laws import LAWS
from compute_market.offers.standing import follow_wallets, record_outcome
from compute_market.records import Capability, Job, Offer, replace
from compute_market.reputation import reputation
from compute_market.scheduler import matching, outcomes
from compute_market.scheduler.matching import STAGES, Match, NoMatch
from compute_market.settlement import ledger
from compute_market.store.txn import Txn
from tests.support.effort import effort
from tests.support.market import Market, job_request, offer_request, slice_of

JOB = drafts.sketch(job_request("job", [slice_of(1)]), [slice_of(1)])


def asks(**fields: Any) -> Job:
    """A job of one unit; fields of its capability may be given as well."""
    own = {name: fields.pop(name) for name in list(fields) if name in Job.__struct_fields__}
    return replace(JOB, capability=Capability(**fields), **own)


def post(txn: Txn, provider: str = "prov", **fields: Any) -> Offer:
    return posting.post(txn, offer_request(provider, **fields))[0]


def fund(txn: Txn, owner: str, ct: int) -> None:
    ledger.tap(txn, "deposit", owner, {"CT": ct, "IT": 0}, None)


def within(market: Market, action: Callable[[Txn], Any]) -> Any:
    """Run something in a transaction of which nothing is kept."""
    return market.update(action, dry_run=True)


def winner(txn: Txn, job: Job, *, real: bool = False) -> str:
    """The id of the offer that wins, or the name of the failure."""
    found = matching.match(txn, job, real=real)
    return found.offer.offer_id if isinstance(found, Match) else found.result


# The conditions.

HAS = {
    "units": 10,
    "price_per_unit": 5,
    "provider_bond": 5,
    "consumer_bond": 2,
    "capability": {
        "cpu_cores": 4,
        "gpu": "A100",
        "gpu_count": 1,
        "gpu_memory_mb": 8192,
        "accelerator": "TPU",
        "accelerator_memory_mb": 512,
    },
}
ASKS = {
    "units": 10,
    "max_price_per_unit": 5,
    "consumer_bond": 2,
    "cpu_cores": 4,
    "gpu": "A100",
    "gpu_count": 1,
    "gpu_memory_mb": 8192,
    "accelerator": "TPU",
    "accelerator_memory_mb": 512,
}
# One row per condition, in the order in which they are listed: what breaks it, its text, its stage.
# `post`, `job` and `score` and `funds` say what is changed; the pair above fits exactly.
CONDITIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"withdrawn": True}, "state: is withdrawn", "capability_mismatch"),
    ({"post": {"job_id": "other"}}, "job_id: is for job other alone", "capability_mismatch"),
    ({"job": {"buyer": "prov"}}, "buyer: prov is the provider", "capability_mismatch"),
    ({"job": {"cpu_cores": 5}}, "cpu_cores: needs 5, has 4", "capability_mismatch"),
    ({"job": {"gpu": "H100"}}, "gpu: needs H100, has A100", "capability_mismatch"),
    ({"job": {"gpu_count": 2}}, "gpu_count: needs 2, has 1", "capability_mismatch"),
    (
        {"job": {"gpu_memory_mb": 16384}},
        "gpu_memory_mb: needs 16384, has 8192",
        "capability_mismatch",
    ),
    ({"job": {"accelerator": "NPU"}}, "accelerator: needs NPU, has TPU", "capability_mismatch"),
    (
        {"job": {"accelerator_memory_mb": 513}},
        "accelerator_memory_mb: needs 513, has 512",
        "capability_mismatch",
    ),
    ({"score": -1}, "reputation: needs 0, has -1", "reputation_failure"),
    ({"job": {"max_price_per_unit": 4}}, "max_price_per_unit: allows 4, asks 5", "price_mismatch"),
    ({"job": {"consumer_bond": 1}}, "consumer_bond: gives 1, asks 2", "price_mismatch"),
    ({"job": {"units": 11}}, "units: needs 11, has 10 left", "no_capacity"),
    ({"funds": 4}, "provider_bond: needs 5 CT, the wallet has 4", "bond_unfunded"),
]
IDS = [text.split(":")[0] for _, text, _ in CONDITIONS]


def arrange(txn: Txn, **changes: Any) -> tuple[Job, Offer]:
    """The pair that fits exactly, with changes of one row or of several."""
    fund(txn, "prov", changes.get("funds", 5))
    offer = post(txn, reputation=changes.get("score", 0), **(HAS | changes.get("post", {})))
    if changes.get("withdrawn"):
        offer, _ = offers.withdraw(txn, offer.offer_id)
    return asks(**(ASKS | changes.get("job", {}))), offer


def test_judge_finds_nothing_wrong_at_every_bound(market: Market) -> None:
    """Among others, a reputation of zero passes."""

    def action(txn: Txn) -> tuple[Any, Any]:
        job, offer = arrange(txn)
        return matching.judge(txn, job, offer, real=True), matching.match(txn, job, real=True)

    shortfalls, found = within(market, action)
    assert shortfalls == []
    assert isinstance(found, Match)
    assert found.offer.offer_id == "o-1"
    assert found.effective_price == 6


@pytest.mark.parametrize(("changes", "text", "result"), CONDITIONS, ids=IDS)
def test_judge_names_the_condition_and_match_its_stage(
    market: Market, changes: dict[str, Any], text: str, result: str
) -> None:
    def action(txn: Txn) -> tuple[Any, Any]:
        job, offer = arrange(txn, **changes)
        return matching.judge(txn, job, offer, real=True), matching.match(txn, job, real=True)

    shortfalls, found = within(market, action)
    assert [str(shortfall) for shortfall in shortfalls] == [text]
    assert STAGES[shortfalls[0].stage] == result
    assert isinstance(found, NoMatch)
    assert found.result == result
    assert found.message


def test_judge_lists_every_condition_that_fails(market: Market) -> None:
    """All rows at once: no condition is missing from the table, and none hides another."""
    everything: dict[str, Any] = {"post": {}, "job": {}}
    for changes, _, _ in CONDITIONS:
        for name, value in changes.items():
            if isinstance(value, dict):
                everything[name] |= value
            else:
                everything[name] = value

    def action(txn: Txn) -> list[str]:
        job, offer = arrange(txn, **everything)
        return [str(s) for s in matching.judge(txn, job, offer, real=True)]

    assert within(market, action) == [text for _, text, _ in CONDITIONS]


def test_judge_asks_for_the_bond_in_real_mode_only(market: Market) -> None:
    def action(txn: Txn) -> list[Any]:
        job, offer = arrange(txn, funds=0)
        return matching.judge(txn, job, offer, real=False)

    assert within(market, action) == []


@pytest.mark.parametrize(
    ("need", "offered", "text"),
    [
        ({"gpu": "A100"}, {}, "gpu: needs A100, has none"),
        ({"accelerator": "TPU"}, {}, "accelerator: needs TPU, has none"),
        ({"gpu": "a100", "gpu_count": 1}, {"gpu": "A100"}, "gpu: needs a100, has A100"),
        ({"gpu_count": 1}, {}, "gpu_count: needs 1, has 0"),
        ({"gpu_memory_mb": 1}, {"gpu": "A100"}, "gpu_memory_mb: needs 1, has 0"),
        (
            {"accelerator_memory_mb": 1},
            {"accelerator": "TPU"},
            "accelerator_memory_mb: needs 1, has 0",
        ),
    ],
)
def test_judge_compares_hardware_that_is_absent(
    market: Market, need: dict[str, Any], offered: dict[str, Any], text: str
) -> None:
    def action(txn: Txn) -> list[str]:
        offer = post(txn, capability=offered)
        return [str(s) for s in matching.judge(txn, asks(**need), offer, real=False)]

    assert within(market, action) == [text]


@pytest.mark.parametrize(
    "need",
    [{}, {"gpu_memory_mb": 8192}, {"gpu_count": 2}, {"gpu": "A100"}, {"cpu_cores": 3}],
)
def test_match_takes_an_offer_with_more_than_is_asked(market: Market, need: dict[str, Any]) -> None:
    """Memory is the total over all GPUs, and counts with no model named."""

    def action(txn: Txn) -> str:
        post(
            txn,
            capability={"cpu_cores": 64, "gpu": "A100", "gpu_count": 2, "gpu_memory_mb": 8192},
        )
        return winner(txn, asks(**need))

    assert within(market, action) == "o-1"


# The choice.


def test_match_compares_exact_effective_prices(market: Market) -> None:
    """Both round to 5; the second is cheaper by five millionths."""

    def action(txn: Txn) -> tuple[str, int]:
        post(txn, "one", price_per_unit=5)
        post(txn, "two", price_per_unit=7, reputation_multiplier="0.714285")
        found = matching.match(txn, asks(), real=False)
        assert isinstance(found, Match)
        return found.offer.offer_id, found.effective_price

    assert within(market, action) == ("o-2", 5)


def test_match_pays_heed_to_the_quoted_price_for_the_cap(market: Market) -> None:
    def action(txn: Txn) -> list[str]:
        post(txn, price_per_unit=100, reputation_multiplier="0.5")
        return [winner(txn, asks(max_price_per_unit=cap)) for cap in (50, 99, 100)]

    assert within(market, action) == ["price_mismatch", "price_mismatch", "o-1"]


def test_match_charges_the_quoted_price(market: Market) -> None:
    market.post(price_per_unit=100, reputation_multiplier="0.8")
    assert market.submit("job").job.placed.price_per_unit == 100
    assert market.view(outcomes.last_effective_price) == 80


@pytest.mark.parametrize(
    ("price", "multiplier", "accelerator", "effective"),
    [
        (100, "0.8", None, 80),
        (5, "0.5", None, 3),
        (1, "0.5", None, 1),
        (5, "0.5", "TPU", 3),
        (3, "0.5", "TPU", 2),
        (25, "0.58", None, 15),
        (5, "1", "TPU", 6),
    ],
)
def test_match_shows_the_effective_price(
    market: Market, price: int, multiplier: str, accelerator: str | None, effective: int
) -> None:
    """The premium is for jobs that ask for an accelerator; the offer has one either way."""

    def action(txn: Txn) -> int:
        post(
            txn,
            price_per_unit=price,
            reputation_multiplier=multiplier,
            capability={"accelerator": "TPU"},
        )
        found = matching.match(txn, asks(accelerator=accelerator), real=False)
        assert isinstance(found, Match)
        return found.effective_price

    assert within(market, action) == effective


@pytest.mark.parametrize(
    ("scores", "wins"),
    [
        ([0, 0, 0], "o-1"),
        ([0, 1, 2], "o-1"),  # A better score decides nothing,
        ([5, 1000, 7], "o-1"),
        ([-1, 0, 5], "o-2"),  # bad standing does.
        ([-1, -1, 5], "o-3"),
    ],
)
@pytest.mark.parametrize("names", ["abc", "cba", "bca"])
def test_match_settles_ties_by_age(
    market: Market, scores: list[int], wins: str, names: str
) -> None:
    """The same exact price in three forms; the provider's name decides nothing either."""
    prices = [(10, "0.5"), (5, "1"), (8, "0.625")]

    def action(txn: Txn) -> str:
        for name, score, (price, multiplier) in zip(names, scores, prices, strict=True):
            post(
                txn,
                name,
                price_per_unit=price,
                reputation_multiplier=multiplier,
                reputation=score,
            )
        return winner(txn, asks())

    assert within(market, action) == wins


def test_match_among_equals_keeps_to_the_oldest_until_it_is_used_up(market: Market) -> None:
    for provider in "abc":
        market.post(provider, units=2)
    found = [market.submit(f"job-{n}").job.placed.offer_id for n in range(5)]
    assert found == ["o-1", "o-1", "o-2", "o-2", "o-3"]
    market.cancel("job-0")  # Units that return make an offer no younger.
    assert market.submit("job-5").job.placed.offer_id == "o-1"


def test_match_prefers_the_cheaper_to_the_better(market: Market) -> None:
    def action(txn: Txn) -> str:
        post(txn, "good", price_per_unit=6, reputation=1000)
        post(txn, "poor", price_per_unit=5, reputation=0)
        return winner(txn, asks())

    assert within(market, action) == "o-2"


def test_match_never_gives_a_job_to_its_buyer(market: Market) -> None:
    def action(txn: Txn) -> list[str]:
        post(txn, "buyer", price_per_unit=1)
        alone = winner(txn, asks())
        post(txn, "prov", price_per_unit=9)
        return [alone, winner(txn, asks())]

    assert within(market, action) == ["capability_mismatch", "o-2"]


def test_match_of_a_directed_offer_is_for_its_job_alone(market: Market) -> None:
    def action(txn: Txn) -> list[str]:
        post(txn, price_per_unit=1, job_id="job")
        post(txn, price_per_unit=9)
        return [winner(txn, asks()), winner(txn, asks(job_id="other"))]

    assert within(market, action) == ["o-1", "o-2"]


def test_match_of_nothing_is_a_capability_mismatch(market: Market) -> None:
    assert within(market, lambda txn: winner(txn, asks())) == "capability_mismatch"


def test_match_writes_nothing(market: Market) -> None:
    def action(txn: Txn) -> int:
        post(txn)
        before = txn.writes
        matching.match(txn, asks(), real=True)
        matching.match(txn, asks(cpu_cores=99), real=True)
        return txn.writes - before

    assert within(market, action) == 0


@pytest.mark.parametrize("furthest", range(len(STAGES)))
def test_match_reports_the_furthest_stage_any_offer_reached(market: Market, furthest: int) -> None:
    """One offer that fails at each stage up to the one that is expected."""
    rows = {
        "capability_mismatch": {"post": {"capability": {}}},
        "reputation_failure": {"score": -1},
        "price_mismatch": {"post": {"price_per_unit": 6}},
        "no_capacity": {"post": {"units": 9}},
        "bond_unfunded": {"funds": 0},
    }

    def action(txn: Txn) -> str:
        for number in range(furthest + 1):
            row: dict[str, Any] = rows[STAGES[number]]
            fund(txn, f"p{number}", row.get("funds", 5))
            post(txn, f"p{number}", reputation=row.get("score", 0), **(HAS | row.get("post", {})))
        return winner(txn, asks(**ASKS), real=True)

    assert within(market, action) == STAGES[furthest]


def test_match_sees_exhausted_and_disgraced_offers_only_in_its_reasons(market: Market) -> None:
    market.post("bad", reputation=-1, price_per_unit=1)
    assert market.submit("a").reason == "reputation_failure"
    market.post("full", units=1, price_per_unit=2)
    assert market.submit("b").job.placed.offer_id == "o-2"
    assert market.submit("c").reason == "no_capacity"
    assert market.submit("d", max_price_per_unit=1).reason == "price_mismatch"
    assert market.submit("e", capability={"gpu": "A100"}).reason == "capability_mismatch"


# The matcher against trying every offer.

MODELS = st.sampled_from([None, None, "A", "B"])
SMALL = st.integers(0, 5)
CAPABILITIES = st.fixed_dictionaries(
    {
        "cpu_cores": st.integers(0, 9),
        "gpu": MODELS,
        "gpu_count": SMALL,
        "gpu_memory_mb": SMALL,
        "accelerator": MODELS,
        "accelerator_memory_mb": SMALL,
    }
)
# A job may name several models.
ASKED = MODELS | st.sampled_from([("A", "B"), ("B", "C"), ("C", "D")])
NEEDS = st.one_of(
    st.just({}),
    st.fixed_dictionaries({}, optional={"cpu_cores": st.integers(0, 9), "gpu": ASKED}),
    st.builds(lambda has, gpu: has | {"gpu": gpu}, CAPABILITIES, ASKED),
)
PROVIDERS = ("p1", "p2", "p3", "p4", "buyer")
POSTS = st.lists(
    st.fixed_dictionaries(
        {
            "provider": st.sampled_from(PROVIDERS),
            "price_per_unit": st.sampled_from([2, 3, 4, 5, 6, 8, 10]),
            "reputation_multiplier": st.sampled_from(["0.5", "0.58", "0.625", "0.999999", "1"]),
            "units": st.integers(1, 9),
            "consumer_bond": st.sampled_from([1, 1, 2, 3]),
            "provider_bond": st.integers(1, 4),
            "capability": CAPABILITIES | st.just({"cpu_cores": 9}),
            "reputation": st.integers(-1, 3),
            "job_id": st.sampled_from([None, None, None, None, "job", "other"]),
        }
    ),
    max_size=14,
)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("withdraw"), st.integers(1, 14), st.just(0)),
        st.tuples(st.just("reserve"), st.integers(1, 14), st.integers(1, 9)),
        st.tuples(st.just("exhaust"), st.integers(1, 14), st.just(0)),
        st.tuples(st.just("release"), st.integers(1, 14), st.integers(1, 9)),
        st.tuples(st.sampled_from(["deposit", "pay out"]), st.integers(-5, -1), st.integers(1, 4)),
        st.tuples(st.sampled_from(PROVIDERS), st.just(0), st.sampled_from([-1, 1])),
    ),
    max_size=12,
)
JOBS = st.builds(
    lambda need, **own: asks(**need, **own),
    NEEDS,
    units=st.integers(1, 9),
    max_price_per_unit=st.sampled_from([1, 4, 8, 100]),
    consumer_bond=st.sampled_from([1, 3, 3]),
    buyer=st.sampled_from(["buyer", "nobody"]),
)
FUNDS = st.dictionaries(st.sampled_from(PROVIDERS), st.integers(1, 4))
SEARCH = settings(
    max_examples=effort(40, 2000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def change(txn: Txn, action: str, number: int, amount: int) -> None:
    """One thing that happens to an offer or a provider, if it can."""
    if number == 0:
        record_outcome(txn, action, amount)
        return
    if number < 0:
        owner = PROVIDERS[number]
        if action == "deposit":
            fund(txn, owner, amount)
        elif held := min(amount, ledger.balance(txn, ledger.wallet(owner), "CT")):
            ledger.tap(txn, "withdraw", owner, {"CT": held, "IT": 0}, None)
        return
    offer = offers.find(txn, f"o-{number}")
    if offer is None:
        return
    if action == "withdraw":
        offers.withdraw(txn, offer.offer_id)
    elif action == "release":
        offers.release(txn, offer.offer_id, min(amount, offer.units_reserved))
    elif offer.state == "open":
        offers.reserve(txn, offer, offer.units_left if action == "exhaust" else min(amount, 1))


def by_trying_all(txn: Txn, job: Job, real: bool) -> str:
    """What `match` must find, from the definition: the winner or the failure."""
    judged = [(offer, matching.judge(txn, job, offer, real=real)) for offer in offers.listed(txn)]
    fitting = [offer for offer, shortfalls in judged if not shortfalls]
    if fitting:
        best = min(
            fitting,
            key=lambda offer: (offer.price_per_unit * offer.multiplier_ppm, offer.seq),
        )
        return best.offer_id
    reached = max((min(s.stage for s in found) for _, found in judged), default=0)
    return STAGES[reached]


@SEARCH
@given(POSTS, CHANGES, FUNDS, st.lists(JOBS, min_size=1, max_size=4), st.booleans())
def test_match_finds_what_trying_every_offer_finds(
    market: Market,
    posts: list[dict[str, Any]],
    changes: list[tuple[str, int, int]],
    funds: dict[str, int],
    wanted: list[Job],
    real: bool,
) -> None:
    def action(txn: Txn) -> None:
        for owner, ct in funds.items():
            fund(txn, owner, ct)
        for fields in posts:
            post(txn, **fields)
        for number, step in enumerate(changes):
            change(txn, *step)
            job = wanted[number % len(wanted)]
            assert winner(txn, job, real=real) == by_trying_all(txn, job, real)
        for job in wanted:
            assert winner(txn, job, real=real) == by_trying_all(txn, job, real)
        follow_wallets(txn)
        assert [violation for law in LAWS for violation in law.check(txn)] == []

    within(market, action)


EQUALS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d", "e", "f"]),
        st.sampled_from([(5, "1"), (10, "0.5"), (8, "0.625"), (6, "1")]),
        st.sampled_from([0, 8]),  # Cores.
    ),
    max_size=25,
)


@SEARCH
@given(EQUALS, st.dictionaries(st.sampled_from("abcdef"), st.integers(-1, 4)))
def test_match_finds_the_best_of_many_equals(
    market: Market,
    posts: list[tuple[str, tuple[int, str], int]],
    scores: dict[str, int],
) -> None:
    def action(txn: Txn) -> None:
        for provider, (price, multiplier), cores in posts:
            post(
                txn,
                provider,
                price_per_unit=price,
                reputation_multiplier=multiplier,
                reputation=scores.get(provider, 0),
                capability={"cpu_cores": cores},
            )
        for job in (asks(), asks(cpu_cores=5), asks(buyer="a")):
            assert winner(txn, job) == by_trying_all(txn, job, False)

    within(market, action)


# Each condition is named rightly: mending it, and nothing else, mends exactly that.


def mended(txn: Txn, offer: Offer, shortfall: matching.Shortfall) -> Offer:
    """The offer with what was asked in the place of what it offered."""
    asked: Any = shortfall.asked
    name = shortfall.condition
    if name == "reputation":
        while reputation.score(txn, offer.provider) < asked:
            record_outcome(txn, offer.provider, +1)
        return offer
    if name == "provider_bond":
        fund(txn, offer.provider, asked - int(shortfall.offered or 0))
        return offer
    if name == "buyer":
        return replace(offer, provider="somebody-else")
    own = {"max_price_per_unit": "price_per_unit", "units": "units_left"}.get(name, name)
    if own == "gpu":
        asked = asked.split(" or ")[0]  # Any of them will do.
    if own in Capability.__struct_fields__:
        return replace(offer, capability=replace(offer.capability, **{own: asked}))
    return replace(offer, **{own: asked})


@SEARCH
@given(POSTS.filter(bool), CHANGES, JOBS, st.booleans(), st.randoms(use_true_random=False))
def test_mending_what_is_named_mends_it_and_nothing_else(
    market: Market,
    posts: list[dict[str, Any]],
    changes: list[tuple[str, int, int]],
    job: Job,
    real: bool,
    random: Any,
) -> None:
    def action(txn: Txn) -> None:
        for fields in posts:
            post(txn, **fields)
        fund(txn, "somebody-else", 10)
        for step in changes:
            change(txn, *step)
        offer = random.choice(list(offers.listed(txn)))
        while shortfalls := matching.judge(txn, job, offer, real=real):
            chosen = random.choice(shortfalls)
            offer = mended(txn, offer, chosen)
            left = [s for s in shortfalls if s is not chosen]
            if chosen.condition == "buyer":  # Another provider has its own score and funds.
                left = [s for s in left if s.condition not in ("reputation", "provider_bond")]
            assert matching.judge(txn, job, offer, real=real) == left

    within(market, action)


@pytest.mark.parametrize(
    ("changes", "result"),
    [(changes, result) for changes, _, result in CONDITIONS if "job" in changes],
    ids=[text.split()[0] for changes, text, _ in CONDITIONS if "job" in changes],
)
def test_asking_for_what_is_offered_turns_a_failure_into_a_match(
    market: Market, changes: dict[str, Any], result: str
) -> None:
    """The buyer's side of it, for the conditions that a job can give way in."""

    def action(txn: Txn) -> tuple[str, str]:
        job, offer = arrange(txn, **changes)
        (shortfall,) = matching.judge(txn, job, offer, real=True)
        value = "somebody" if shortfall.condition == "buyer" else shortfall.offered
        if shortfall.condition in Capability.__struct_fields__:
            need = replace(job.capability, **{shortfall.condition: value})
            relaxed = replace(job, capability=need)
        else:
            relaxed = replace(job, **{shortfall.condition: value})
        return winner(txn, job, real=True), winner(txn, relaxed, real=True)

    assert within(market, action) == (result, "o-1")


# It must not scan.

DECOYS = 2_000
VISITS_MAX = 20


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ids of the offers that were judged."""
    judge = matching.judge
    found: list[str] = []

    def counting(txn: Txn, job: Job, offer: Offer, *, real: bool) -> list[matching.Shortfall]:
        found.append(offer.offer_id)
        return judge(txn, job, offer, real=real)

    monkeypatch.setattr(matching, "judge", counting)
    return found


def exhaust(txn: Txn, offer: Offer) -> None:
    offers.reserve(txn, offer, offer.units_left)


def withdraw(txn: Txn, offer: Offer) -> None:
    offers.withdraw(txn, offer.offer_id)


GOOD = {
    "units": 16,
    "price_per_unit": 50,
    "consumer_bond": 2,
    "capability": {"cpu_cores": 16, "gpu": "A100", "gpu_memory_mb": 16384},
}
WANTED = asks(
    units=16,
    max_price_per_unit=60,
    consumer_bond=2,
    cpu_cores=16,
    gpu="A100",
    gpu_memory_mb=16384,
)


def lacking(**capability: Any) -> dict[str, Any]:
    return {"capability": GOOD["capability"] | capability}  # type: ignore[operator]


# What makes an offer useless, and what happens to it after it was posted.
USELESS: dict[str, tuple[dict[str, Any], Callable[[Txn, Offer], None] | None]] = {
    "memory": (lacking(gpu_memory_mb=8192), None),
    "memory by one": (lacking(gpu_memory_mb=16383), None),
    "cores": (lacking(cpu_cores=8), None),
    "cores by one": (lacking(cpu_cores=15), None),
    "another model": (lacking(gpu="H100"), None),
    "no model": ({"capability": {"cpu_cores": 64, "gpu_memory_mb": 65536}}, None),
    "exhausted": ({}, exhaust),
    "withdrawn": ({}, withdraw),
    "bad standing": ({"reputation": -1}, None),
    "directed to another job": ({"job_id": "other"}, None),
    "too few units": ({"units": 8}, None),
    "too few units by one": ({"units": 15}, None),
    "bond too high": ({"consumer_bond": 4}, None),
    "bond that cannot be paid": ({"provider_bond": 7}, None),
    "price above the cap": ({"price_per_unit": 64, "reputation_multiplier": "0.5"}, None),
}


@pytest.mark.parametrize("kind", USELESS)
def test_match_does_not_walk_over_useless_offers(
    market: Market, visits: list[str], kind: str
) -> None:
    """They are alone first; then they are cheaper than the good one and they are older."""
    fields, then = USELESS[kind]
    broke = "provider_bond" in fields

    def matched(txn: Txn) -> str:
        visits.clear()
        found = winner(txn, WANTED, real=True)
        assert len(visits) <= VISITS_MAX, f"{len(visits)} offers were looked at"
        return found

    def action(txn: Txn) -> tuple[str, str]:
        for owner in ("good", *(f"p{number}" for number in range(50))):
            fund(txn, owner, 6 if broke else 1)
        for number in range(DECOYS):
            cheap = {"price_per_unit": 1 + number % 40, "offer_id": f"x{number}"}
            offer = post(txn, f"p{number % 50}", **(GOOD | cheap | fields))
            if then is not None:
                then(txn, offer)
        alone = matched(txn)
        post(txn, "good", **(GOOD | {"offer_id": "good"}))
        return alone, matched(txn)

    alone, found = within(market, action)
    assert alone in STAGES
    assert found == "good"


@pytest.mark.parametrize("classes", [1, 40])
@pytest.mark.parametrize("scores", ["rising", "same", "one provider"])
def test_match_does_not_walk_over_equals(
    market: Market, visits: list[str], scores: str, classes: int
) -> None:
    """However good their providers are, and however many sizes they come in."""

    def action(txn: Txn) -> str:
        for number in range(DECOYS):
            name = "one" if scores == "one provider" else f"p{number}"
            score = number * 1000 // DECOYS if scores == "rising" else 5
            size = lacking(cpu_cores=16 + (DECOYS - number) % classes)
            post(txn, name, reputation=score, **(GOOD | size))
        return winner(txn, WANTED)

    assert within(market, action) == "o-1"
    assert len(visits) == 1


def test_match_reads_no_more_with_more_offers(market: Market, visits: list[str]) -> None:
    """Prices, sizes and scores of all kinds, as a market has them."""

    def fill(txn: Txn, first: int, last: int) -> None:
        for number in range(first, last):
            post(
                txn,
                f"p{number % 97}",
                price_per_unit=1 + number * 31 % 200,
                units=1 + number * 17 % 64,
                reputation=number % 9 - 2,
                capability={
                    "cpu_cores": 2 ** (number % 7),
                    "gpu": (None, "A100", "H100")[number % 3],
                    "gpu_memory_mb": 4096 * (number % 9),
                },
            )

    def action(txn: Txn) -> list[int]:
        counts = []
        for first, last in ((0, 50), (50, 5_000)):
            fill(txn, first, last)
            visits.clear()
            assert winner(txn, WANTED) == by_trying_all(txn, WANTED, False)
            counts.append(len(visits) - last)  # The comparison judges every offer once.
        return counts

    few, many = within(market, action)
    assert many <= max(few, 0) + VISITS_MAX


def test_match_passes_over_an_equal_that_does_not_fit(market: Market) -> None:
    """The buyer's own offer stands beside the winner, behind more of better standing."""

    def action(txn: Txn) -> str:
        post(txn, "p", price_per_unit=5)
        post(txn, "buyer", price_per_unit=5)
        for number in range(20):
            post(txn, f"better{number:02}", price_per_unit=9, reputation=5)
        return winner(txn, asks())

    assert within(market, action) == "o-1"
