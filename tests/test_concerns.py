"""What an operator is told at once: every concern appears with its cause and goes with it."""

from collections.abc import Callable

import pytest

from compute_market import concerns, overview
from compute_market.admission import capacity, mempool
from compute_market.concerns import Concern
from compute_market.courier import courier
from compute_market.courier.courier import Attempted
from compute_market.exposition import Files
from compute_market.offers import offers, standing
from compute_market.settlement import modes
from compute_market.store.schema import QUARANTINE
from compute_market.store.txn import Txn
from monitoring.alerts import ALERTS
from tests.support.bundles import HOLDER, bundle, ids
from tests.support.importing import import_of, links, trust
from tests.support.market import Market
from tests.support.receipt_file import KEY, receipt


def concerns_of(market: Market, files: Files | None = None) -> list[Concern]:
    return market.view(lambda txn: concerns.of(txn, overview.document(txn), files))


def texts(market: Market, files: Files | None = None) -> list[str]:
    return [f"{each.level}: {each.text}" for each in concerns_of(market, files)]


def offer_something(market: Market) -> None:
    """An offer that nobody takes: a market without any is told of too."""
    market.post("dear", offer_id="dear", price_per_unit=10**6)


def fail_a_bundle(txn: Txn) -> None:
    sent = courier.send(txn, bundle(), ids())
    courier.claim(txn, HOLDER, None, 100)
    courier.record(txn, [Attempted(sent.seq, "failed", 1, 1, "no")], HOLDER)


def tighten(market: Market) -> None:
    for number in range(mempool.FEES_KEPT):
        market.send(10**6, sender=f"sender-{number}")


def bar(market: Market) -> None:
    market.post()
    market.update(lambda txn: standing.record_outcome(txn, "prov", -1))


def wait_for_a_slot(market: Market) -> None:
    market.configure(slots=1)
    market.post()
    market.submit("first")
    market.submit("second", priority="high")
    market.advance(61)


def fall_due(market: Market) -> None:
    market.post()
    market.submit("late", deadline_secs=600)
    market.advance(1300)


def lack_a_bond(market: Market) -> None:
    market.post(provider_bond=5)
    market.update(lambda txn: modes.arm(txn, 10**6))


def wait_long_of_low(market: Market) -> None:
    market.configure(slots=1)
    market.post()
    market.submit("first")
    market.submit("second", priority="low")
    market.advance(3600)
    market.update(lambda txn: None)


def take_all(market: Market) -> None:
    market.configure(min_capacity=1, initial_capacity=1, fair_share_cap_ppm=10**6)
    market.post()
    market.update(lambda txn: capacity.record(txn, 1))
    market.submit("large", lengths=(58 * 1_000_000,))


def burn(market: Market) -> None:
    for owner in ("buyer", "prov", "dear"):
        market.deposit(owner, ct=900)
    market.update(lambda txn: modes.arm(txn, 0))
    market.post(provider_bond=20)
    market.submit("late", deadline_secs=600)
    market.advance(700)
    market.update(lambda txn: None)


CAUSES: dict[str, tuple[Callable[[Market], object], list[str]]] = {
    "bundle": (
        lambda market: market.update(fail_a_bundle),
        ["watch: 1 bundle has not arrived at the first attempt"],
    ),
    "guard": (tighten, ["watch: the comfort guard is tight: no industrial job is admitted"]),
    "standing": (bar, ["watch: 1 offer is barred: bad standing"]),
    "slot": (wait_for_a_slot, ["watch: a high job has waited 61 s for a slot"]),
    "offer": (
        lambda market: market.submit(wait=True),
        ["watch: 1 job waits for an offer, most for: price"],
    ),
    "bond": (lack_a_bond, ["watch: 2 offers cannot be taken: the bond is not there"]),
    "idle": (
        fall_due,
        ["act: something is due, and nothing has changed the market for 21 minutes"],
    ),
    "no timer": (
        lambda market: (market.configure(epoch_blocks=10**6), market.advance(600)),
        ["watch: nothing has changed the market for 10 minutes"],
    ),
    "low": (wait_long_of_low, ["watch: a low job has waited 3600 s for a slot"]),
    "headroom": (
        take_all,
        [
            "watch: less than a tenth of the capacity of a minute is left: "
            "jobs are about to be refused"
        ],
    ),
    "burned": (
        burn,
        [
            "watch: bonds of 20 CT were burned within the last hour",
            "watch: 1 offer is barred: bad standing",
        ],
    ),
    "closed": (
        lambda market: market.update(lambda txn: offers.withdraw(txn, "dear")),
        ["watch: no offer is open: no job can be placed"],
    ),
    "mode": (
        lambda market: market.update(lambda txn: (modes.arm(txn, 9), modes.to_dry_run(txn, "why"))),
        ["watch: settlement is in dry_run, no money moves: why"],
    ),
}


@pytest.mark.parametrize(("cause", "told"), CAUSES.values(), ids=CAUSES)
def test_cause_is_told_and_nothing_else(
    market: Market, cause: Callable[[Market], object], told: list[str]
) -> None:
    offer_something(market)
    assert texts(market) == []
    cause(market)
    assert texts(market) == told
    assert all(each.way_out for each in concerns_of(market))


def test_files_are_told_of_once_they_are_full_or_nobody_copies_them(market: Market) -> None:
    now_ms = market.now_ms
    assert texts(market, Files(1, 0, 0)) == ["watch: no offer is open: no job can be placed"]
    offer_something(market)
    assert texts(market, Files(1, 0.8, now_ms)) == []
    assert texts(market, Files(1, 0, 0)) == ["watch: there is no backup"]
    old = Files(1, 0.834, now_ms - 37 * 3_600_000)
    assert texts(market, old) == [
        "act: the data file has used 83% of what it may grow to",
        "watch: the last backup is 37 hours old",
    ]


def test_mode_that_is_stopped_on_purpose_is_no_alarm(market: Market) -> None:
    """Even where a payment has failed some day; the failure itself is one."""
    offer_something(market)
    trust(market, KEY)
    market.update(lambda txn: modes.arm(txn, 0))
    import_of(market, links(receipt(1, buyer="poor")))
    reason = market.view(modes.state).reason
    told = [f"act: settlement is in dry_run, no money moves: {reason}"]
    assert texts(market)[:1] == told
    market.update(lambda txn: modes.arm(txn, 0))
    assert texts(market)[:1] != told
    market.update(lambda txn: modes.to_dry_run(txn, "the books are looked at"))
    assert "watch: settlement is in dry_run, no money moves: the books are looked at" in texts(
        market
    )


# Alerts that need more than the present state, and those that a person who looks sees anyway.
# A receipt that was not stored is told to whoever ran the command; what is left of it is a counter.
OF_THE_PAST = {
    "MarketUnseen",
    "JobsDeferred",
    "JobsRefused",
    "QueueStands",
    "PriorityJobsLate",
    "MatchesFail",
    "PricesJumped",
    "PriceBoardLost",
    "DeadlinesMissed",
    "ProvidersFail",
    "ReceiptsNotStored",
}
TOLD_OF = {
    "NothingRuns": "no timer",
    "ClockHeld": "clock",
    "StoreNearlyFull": "files",
    "BackupOld": "files",
    "SettlementFell": "mode",
    "SettlementFailures": "mode",
    "ReceiptsWait": "mode",
    "ReceiptsCorrupt": "quarantine",
    "ComfortBreached": "guard",
    "NoHeadroom": "headroom",
    "JobsWaitLong": "low",
    "SlotsFull": "slot",
    "JobsFindNoOffer": "offer",
    "NothingToBuy": "closed",
    "ProvidersBarred": "standing",
    "SlaSlashesRising": "burned",
    "CourierFailing": "bundle",
    "BundlesWait": "bundle",
}


def test_every_alert_of_the_present_state_has_its_concern() -> None:
    names = {alert.name for alert in ALERTS}
    assert names >= OF_THE_PAST | TOLD_OF.keys()
    assert names == OF_THE_PAST | TOLD_OF.keys()
    assert set(TOLD_OF.values()) <= CAUSES.keys() | {"clock", "files", "quarantine"}


def test_what_needs_an_act_comes_first(market: Market) -> None:
    offer_something(market)
    market.submit("waits", wait=True)
    market.alone(lambda txn: txn.put(QUARANTINE, bytes(32), b"rubbish"))
    assert [each.level for each in concerns_of(market)] == ["act", "watch"]
    market.alone(lambda txn: txn.delete(QUARANTINE, bytes(32)))


def test_clock_that_is_not_believed_is_told(market: Market) -> None:
    market.post()
    market.advance(-3600)
    assert texts(market) == ["act: the clock is not believed: nothing falls due until it is"]
