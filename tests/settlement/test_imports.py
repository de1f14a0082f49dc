"""Receipts of other markets: taken once and in order, paid once, and what is refused."""

from collections.abc import Iterator
from typing import Any

import pytest

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import ConflictError, IntegrityError, MarketError, RefusedError
from compute_market.settlement import imports, ledger, modes, receipt_files
from compute_market.settlement.imports import CHUNK, Taken
from compute_market.settlement.receipt_files import Exported
from compute_market.store.schema import (
    IMPORT_FAILURES,
    OFFERS,
    POSTINGS,
    REPUTATION,
    TABLES,
)
from compute_market.store.txn import Txn
from tests.support.importing import (
    OTHERS,
    PRICE,
    THEIRS,
    file_of,
    import_,
    import_of,
    links,
    statuses,
    three,
    trust,
)
from tests.support.market import MARKET_ID, Market
from tests.support.modes import go_real, mode
from tests.support.receipt_file import KEY, OTHER_KEY, chained, exported, receipt
from tests.support.state import balances, command, contents, three_receipts


@pytest.fixture
def market(market: Market) -> Market:
    """A market in dry_run that trusts the key of the other one."""
    trust(market, KEY)
    return market


@pytest.fixture
def real(market: Market) -> Market:
    """The same in the mode real; `buyer` has enough for three receipts and `prov` nothing."""
    market.configure(settle_mode="real")
    market.deposit("buyer", ct=3 * PRICE)
    return market


def counts(taken: Taken) -> dict[str, int]:
    return {**taken.became, "imported": taken.imported}


def metrics_of(market: Market) -> tuple[int, int, int]:
    """(receipts counted in dry_run, receipts counted in real, payments)."""
    counted = [market.counter("matches_total", each) for each in ("true", "false")]
    return counted[0], counted[1], market.counter("settle_applied_total")


def postings(market: Market) -> list[tuple[str, int, str, str, str]]:
    """Those of imports."""

    def look(txn: Txn) -> list[tuple[str, int, str, str, str]]:
        found = (p for p in txn.records(POSTINGS) if p.event == "import:settle")
        return [(p.token, p.amount, p.debit, p.credit, p.ref) for p in found]

    return market.view(look)


def refusal(market: Market, lines: list[bytes], **options: bytes) -> MarketError:
    """The error of an import that changes nothing."""
    before = contents(market)
    with pytest.raises(MarketError) as caught:
        import_(market, lines, **options)  # type: ignore[arg-type]
    assert contents(market) == before
    return caught.value


# Recorded and paid.


def test_import_in_dry_run_is_recorded_and_moves_nothing(market: Market) -> None:
    market.deposit("buyer", ct=100)
    before = balances(market)
    assert counts(import_of(market, three())) == {"recorded": 3, "imported": 3}
    assert balances(market) == before
    assert statuses(market) == dict.fromkeys((1, 2, 3), "recorded")
    assert metrics_of(market) == (3, 0, 0)


def test_import_in_real_moves_price_times_units_from_buyer_to_provider(real: Market) -> None:
    entries = links(receipt(1, units=2), receipt(2, provider="other"))
    assert counts(import_of(real, entries)) == {"applied": 2, "imported": 2}
    assert postings(real) == [
        ("CT", 2 * PRICE, "wallet/buyer", "wallet/prov", "job-1"),
        ("CT", PRICE, "wallet/buyer", "wallet/other", "job-2"),
    ]
    assert real.balance("wallet/buyer") == 0
    assert metrics_of(real) == (0, 2, 2)


@pytest.mark.parametrize("dry_run", [True, False])
def test_mode_of_the_other_market_makes_no_difference(real: Market, dry_run: bool) -> None:
    assert counts(import_of(real, three(dry_run=dry_run)))["applied"] == 3


def test_dry_run_receipt_imported_again_in_real_is_applied_once(market: Market) -> None:
    market.deposit("buyer", ct=100)
    entries = three()
    import_of(market, entries)
    assert counts(import_of(market, entries)) == {"duplicate": 3, "imported": 0}
    go_real(market)
    assert counts(import_of(market, entries)) == {"applied": 3, "imported": 0}
    for _ in range(2):
        assert counts(import_of(market, entries)) == {"duplicate": 3, "imported": 0}
        market.reopen()
    assert market.balance("wallet/prov") == 3 * PRICE
    assert metrics_of(market) == (3, 0, 3)


def test_armed_mode_records(market: Market) -> None:
    market.update(lambda txn: modes.arm(txn, 100))
    assert counts(import_of(market, three())) == {"recorded": 3, "imported": 3}


def test_import_changes_neither_scores_nor_offers(real: Market) -> None:
    real.deposit("prov", ct=10)
    real.post(units=10, reputation=7)
    before = contents(real, *(each for each in TABLES if each not in (OFFERS, REPUTATION)))
    import_of(real, three())
    assert contents(real, *(each for each in TABLES if each not in (OFFERS, REPUTATION))) == before
    assert real.counter("reputation_adjust_total", "success") == 0
    assert real.counter("industrial_units_total") == 0


def test_receipt_that_is_worth_nothing_is_applied_without_a_posting(real: Market) -> None:
    assert counts(import_of(real, links(receipt(1, quote_price=0)))) == {
        "applied": 1,
        "imported": 1,
    }
    assert postings(real) == []


def test_import_fills_a_wallet_that_an_offer_waits_for(real: Market) -> None:
    real.post(provider_bond=PRICE)
    assert real.offer("o-1").shelf == "unfunded"
    import_of(real, three())
    assert real.offer("o-1").shelf == "open"


def test_import_is_told_in_the_log(real: Market) -> None:
    import_of(real, three())
    (logged,) = real.events("receipts_imported")
    assert logged.event.detail == {
        "market_id": THEIRS.hex(),
        "from_seq": 1,
        "to_seq": 3,
        "imported": 3,
        "applied": 3,
    }
    paid = real.events("import_paid")
    assert [(p.event.job_id, p.event.owner) for p in paid] == [
        (f"job-{seq}", "buyer") for seq in (1, 2, 3)
    ]
    assert paid[0].event.detail == {"provider": "prov", "ct": PRICE}


def test_file_without_receipts_changes_nothing(market: Market) -> None:
    command(market)
    before = contents(market)
    assert counts(import_of(market, [])) == {"imported": 0}
    assert contents(market) == before


# What cannot be paid.


def test_failure_keeps_those_before_and_lets_the_mode_fall(real: Market) -> None:
    entries = links(receipt(1), receipt(2, buyer="poor"), receipt(3))
    taken = import_of(real, entries)
    assert counts(taken) == {"applied": 1, "failed": 1, "recorded": 1, "imported": 3}
    assert isinstance(taken.failure, RefusedError)
    assert taken.failure.message == (
        f"receipt 2 of market {THEIRS.hex()} was not paid, and the mode is dry_run now: "
        "wallet of poor has 0 CT, 5 CT are needed"
    )
    assert taken.failure.reason == "insufficient_funds"
    assert statuses(real) == {1: "applied", 2: "failed", 3: "recorded"}
    state = real.view(modes.state)
    assert (state.mode, state.reason) == (
        "dry_run",
        f"receipt 2 of market {THEIRS.hex()} was not paid: insufficient_funds",
    )
    assert real.counter("settle_failed_total", "insufficient_funds") == 1
    assert metrics_of(real) == (1, 2, 1)
    (failure,) = real.view(lambda txn: list(txn.records(IMPORT_FAILURES)))
    assert (failure.market_id, failure.seq, failure.reason) == (THEIRS, 2, "insufficient_funds")
    (logged,) = real.events("import_failed")
    assert (logged.event.job_id, logged.event.owner) == ("job-2", "poor")


def test_failure_is_paid_once_there_is_money_and_the_mode_is_real_again(real: Market) -> None:
    entries = links(receipt(1), receipt(2, buyer="poor"), receipt(3))
    import_of(real, entries)
    assert counts(import_of(real, entries)) == {"duplicate": 3, "imported": 0}  # It is dry_run.
    go_real(real)
    taken = import_of(real, entries)  # Nobody has paid in.
    assert counts(taken) == {"duplicate": 2, "failed": 1, "imported": 0}
    assert (mode(real), real.counter("settle_failed_total", "insufficient_funds")) == ("dry_run", 2)
    real.deposit("poor", ct=PRICE)
    go_real(real)
    assert counts(import_of(real, entries)) == {"duplicate": 1, "applied": 2, "imported": 0}
    assert statuses(real) == dict.fromkeys((1, 2, 3), "applied")
    assert metrics_of(real) == (1, 2, 3)
    assert mode(real) == "real"


@pytest.mark.parametrize(
    "fields", [{"quote_price": AMOUNT_MAX, "units": 2}, {"quote_price": 1, "provider": "rich"}]
)
def test_overflow_is_a_failure(real: Market, fields: dict[str, object]) -> None:
    # Only the supply can hold so much that one more does not fit.
    real.deposit("rich", ct=AMOUNT_MAX - 3 * PRICE)
    real.alone(lambda txn: txn.add(ledger.ACCOUNTS, b"CT\0wallet/rich", 3 * PRICE))
    taken = import_of(real, links(receipt(1, **fields)))
    real.alone(lambda txn: txn.add(ledger.ACCOUNTS, b"CT\0wallet/rich", -3 * PRICE))
    assert counts(taken) == {"failed": 1, "imported": 1}
    assert real.counter("settle_failed_total", "overflow") == 1
    assert postings(real) == []


class Killed(BaseException):
    pass


def test_import_killed_between_its_two_transactions_comes_to_the_same_end(real: Market) -> None:
    entries = links(receipt(1), receipt(2, buyer="poor"), receipt(3))
    transactions = iter((True, False))

    def update(fn: Any) -> Any:
        if next(transactions):
            return real.update(fn)
        raise Killed

    with pytest.raises(Killed):
        import_(real, file_of(entries), update=update)
    assert (statuses(real), mode(real)) == ({1: "applied"}, "real")
    assert counts(import_of(real, entries)) == {
        "duplicate": 1,
        "failed": 1,
        "recorded": 1,
        "imported": 2,
    }
    assert statuses(real) == {1: "applied", 2: "failed", 3: "recorded"}
    assert real.counter("settle_failed_total", "insufficient_funds") == 1
    assert (mode(real), *metrics_of(real)) == ("dry_run", 1, 2, 1)


def test_what_can_be_paid_by_the_second_transaction_is_paid(real: Market) -> None:
    entries = links(receipt(1), receipt(2, buyer="poor"), receipt(3))
    transactions = iter((False, True))

    def update(fn: Any) -> Any:
        if next(transactions):
            real.deposit("poor", ct=PRICE)
        return real.update(fn)

    assert counts(import_(real, file_of(entries), update=update))["applied"] == 3
    assert (mode(real), real.counter("settle_failed_total", "insufficient_funds")) == ("real", 0)


@pytest.mark.parametrize("funds", [0, PRICE])
@pytest.mark.parametrize("before", [0, 1])
def test_two_importers_at_once_apply_everything_once(real: Market, before: int, funds: int) -> None:
    """Another importer does all of it before one of this one's transactions."""
    if funds:
        real.deposit("poor", ct=funds)
    entries = links(receipt(1), receipt(2, buyer="poor"), receipt(3))
    done = 0

    def update(fn: Any) -> Any:
        nonlocal done
        if done == before:
            import_of(real, entries)
        done += 1
        return real.update(fn)

    import_(real, file_of(entries), update=update)
    if not funds:
        assert statuses(real) == {1: "applied", 2: "failed", 3: "recorded"}
        assert metrics_of(real) == (1, 2, 1)
    else:
        assert statuses(real) == dict.fromkeys((1, 2, 3), "applied")
        assert metrics_of(real) == (0, 3, 3)
    assert real.counter("settle_failed_total", "insufficient_funds") == (0 if funds else 1)


def test_mode_that_turns_real_meanwhile_pays_nothing_behind_a_failure(
    real: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "CHUNK", 1)
    entries = links(receipt(1, buyer="poor"), receipt(2), receipt(3))

    def update(fn: Any) -> Any:
        taken = real.update(fn)
        if mode(real) == "dry_run":
            go_real(real)
        return taken

    assert counts(import_(real, file_of(entries), update=update)) == {
        "failed": 1,
        "recorded": 2,
        "imported": 3,
    }


# In order, without a gap, on one chain.


def test_files_that_follow_each_other_or_overlap_are_taken(market: Market) -> None:
    entries = links(*(receipt(seq) for seq in range(1, 8)))
    for first, last in ((0, 2), (2, 4), (1, 6), (0, 7)):
        after = entries[first - 1].link if first else None
        lines = file_of(entries[first:last], **({} if after is None else {"after": after}))
        import_(market, lines)
    assert statuses(market) == dict.fromkeys(range(1, 8), "recorded")


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (3, "the first file of market {} begins with receipt 4: receipts 1 to 3 are missing"),
        (1, "the first file of market {} begins with receipt 2: receipts 1 to 1 are missing"),
    ],
)
def test_first_file_that_does_not_begin_with_the_first_is_a_gap(
    market: Market, first: int, message: str
) -> None:
    entries = links(*(receipt(seq) for seq in range(1, 6)))
    lines = file_of(entries[first:], after=entries[first - 1].link)
    error = refusal(market, lines)
    assert (error.reason, error.exit_code) == ("gap", 5)
    assert error.message == message.format(THEIRS.hex())
    # Unless the operator says behind which link it begins.
    link = entries[first - 1].link
    assert counts(import_(market, lines, from_link=link))["imported"] == 5 - first


def test_file_that_leaves_receipts_out_is_a_gap(market: Market) -> None:
    entries = links(*(receipt(seq) for seq in range(1, 6)))
    import_of(market, entries[:2])
    error = refusal(market, file_of(entries[3:], after=entries[2].link))
    assert error.reason == "gap"
    assert error.message == f"receipts 3 to 3 of market {THEIRS.hex()} are missing"
    assert error.hint is not None
    assert error.hint.endswith("--from 3")


def test_receipts_before_the_first_one_taken_are_refused(market: Market) -> None:
    entries = links(*(receipt(seq) for seq in range(1, 6)))
    link = entries[2].link
    import_(market, file_of(entries[3:], after=link), from_link=link)
    error = refusal(market, file_of(entries))
    assert (error.reason, error.exit_code) == ("before_first", 5)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_other_chain_than_the_one_that_is_held_is_a_fork(real: Market, at: int) -> None:
    """At a receipt that is held, or right behind the last one."""
    import_of(real, three())
    forked = links(*(receipt(seq, buyer="buyer" if seq < at else "victim") for seq in range(1, 5)))
    if at == 4:
        forked = links(receipt(1, lane="consumer"), receipt(2), receipt(3), receipt(4))
        lines = file_of(forked[3:], after=forked[2].link)
    else:
        lines = file_of(forked)
    error = refusal(real, lines)
    assert (error.reason, error.exit_code) == ("fork", 9)
    assert isinstance(error, IntegrityError)


def test_another_market_has_a_chain_of_its_own(real: Market) -> None:
    real.deposit("buyer", ct=100)
    import_of(real, three())
    others = [receipt(seq, job_id=f"other-{seq}") for seq in (1, 2)]
    import_(real, file_of(links(*others), market_id=OTHERS))
    assert metrics_of(real) == (0, 5, 5)


# Keys of those who sign.


def test_key_that_is_not_trusted_is_refused_and_the_way_out_named(market: Market) -> None:
    trust(market)
    error = refusal(market, file_of(three()))
    assert (error.reason, error.exit_code) == ("untrusted_key", 5)
    assert KEY.key_id.hex() in error.message
    assert error.hint is not None
    assert error.hint.endswith(f'trusted = ["{KEY.key_id.hex()}"]')
    trust(market, OTHER_KEY)
    error = refusal(market, file_of(three()))
    ids = f'"{OTHER_KEY.key_id.hex()}", "{KEY.key_id.hex()}"'
    assert (error.hint or "").endswith(f"trusted = [{ids}]")


def test_another_trusted_key_cannot_go_on_with_the_chain_of_a_market(market: Market) -> None:
    trust(market, KEY, OTHER_KEY)
    entries = links(*(receipt(seq) for seq in range(1, 5)))
    import_of(market, entries[:3])
    error = refusal(market, file_of(entries, OTHER_KEY))
    assert (error.reason, error.exit_code) == ("another_key", 5)
    # Unless the operator no longer trusts the key it had.
    trust(market, OTHER_KEY)
    assert counts(import_of(market, entries, OTHER_KEY))["imported"] == 1
    trust(market, KEY, OTHER_KEY)
    assert refusal(market, file_of(entries, KEY)).reason == "another_key"


# Keys of receipts, and parties.


def test_same_receipt_from_two_markets_counts_once(real: Market) -> None:
    import_of(real, three())
    taken = import_(real, file_of(three(), market_id=OTHERS))
    assert counts(taken) == {"duplicate": 3, "imported": 0}
    assert metrics_of(real) == (0, 3, 3)
    more = links(*(receipt(seq) for seq in (1, 2, 3)), receipt(4, quote_price=0))
    taken = import_(real, file_of(more, market_id=OTHERS))
    assert counts(taken) == {"duplicate": 3, "applied": 1, "imported": 1}


def test_receipt_that_is_one_of_our_own_counts_once(real: Market) -> None:
    real.deposit("buyer", ct=100, it=100)
    real.deposit("prov", ct=10)
    real.post()
    real.submit("job-1")
    real.prove("job-1")
    before = metrics_of(real)
    assert before == (0, 1, 1)
    assert counts(import_of(real, links(receipt(1)))) == {"duplicate": 1, "imported": 0}
    assert metrics_of(real) == before
    assert statuses(real) == {1: "duplicate"}


def test_key_that_stands_for_another_receipt_ends_the_import(real: Market) -> None:
    """The ids of job, buyer and provider run together to the same text."""
    collides = receipt(3, job_id="job-1b", buyer="uyer")
    entries = links(receipt(1), receipt(2), collides, receipt(4))
    taken = import_of(real, entries)
    assert counts(taken) == {"applied": 2, "imported": 2}
    assert isinstance(taken.stop, ConflictError)
    assert (taken.stop.reason, taken.stop.exit_code) == ("key_collision", 6)
    assert mode(real) == "real"
    assert counts(import_of(real, entries)) == {"duplicate": 2, "imported": 0}
    assert refusal(real, file_of(entries[2:], after=entries[1].link)).reason == "key_collision"


def test_key_of_one_of_our_own_receipts_stands_for_no_other(real: Market) -> None:
    real.deposit("buyer", ct=100, it=100)
    real.deposit("prov", ct=10)
    real.post()
    real.submit("job-1")
    real.prove("job-1")
    error = refusal(real, file_of(links(receipt(1, job_id="job-1b", buyer="uyer"))))
    assert (error.reason, error.exit_code) == ("key_collision", 6)


def test_party_that_pays_itself_is_refused(real: Market) -> None:
    entries = links(receipt(1), receipt(2, provider="buyer"), receipt(3))
    taken = import_of(real, entries)
    assert counts(taken) == {"applied": 1, "imported": 1}
    assert taken.stop is not None
    assert (taken.stop.reason, taken.stop.exit_code) == ("self_deal", 5)


@pytest.mark.parametrize("mode", ["dry_run", "real"])
def test_party_that_pays_itself_in_the_first_receipt_changes_nothing(
    market: Market, mode: str
) -> None:
    market.configure(settle_mode=mode)
    command(market)
    error = refusal(market, file_of(links(receipt(1, provider="buyer"))))
    assert (error.reason, error.exit_code) == ("self_deal", 5)


# A file of one's own.


def test_own_receipts_are_duplicates(market: Market) -> None:
    three_receipts(market)
    command(market)
    before = contents(market)
    assert counts(import_(market, exported(market))) == {"duplicate": 3, "imported": 0}
    assert contents(market) == before


@pytest.mark.parametrize("count", [1, 3, 4])
def test_other_receipts_under_our_own_name_are_a_fork(market: Market, count: int) -> None:
    three_receipts(market)
    forged = links(*(receipt(seq) for seq in range(1, count + 1)))
    error = refusal(market, file_of(forged, market_id=MARKET_ID))
    assert (error.reason, error.exit_code) == ("fork", 9)


def test_receipt_that_we_never_issued_is_a_fork_of_our_own_chain(market: Market) -> None:
    """As when a home was restored from a backup, and the file is from after it."""
    three_receipts(market)
    known = list(receipt_files.entries(exported(market)))
    more = [*known, *chained([receipt(4)], known[-1].link)]
    error = refusal(market, file_of(more, market_id=MARKET_ID))
    assert (error.reason, error.exit_code) == ("fork", 9)


# Long files.


def test_long_file_is_taken_in_chunks_and_never_held(real: Market) -> None:
    count = 2 * CHUNK + CHUNK // 2
    real.deposit("buyer", ct=count * PRICE)
    lines = file_of(links(*(receipt(seq) for seq in range(1, count + 1))))
    given = taken = transactions = 0

    def entries() -> Iterator[Exported]:
        nonlocal given
        for each in receipt_files.entries(lines):
            given += 1
            yield each

    def update(fn: Any) -> Any:
        nonlocal taken, transactions
        assert given - taken <= CHUNK
        found = real.update(fn)
        taken += found.became.total()
        transactions += 1
        return found

    found = imports.take_all(update, receipt_files.verify(lines), entries())
    assert counts(found) == {"applied": count, "imported": count}
    assert transactions == 3
    assert metrics_of(real) == (0, count, count)


def test_import_goes_on_where_a_killed_one_stopped(
    real: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "CHUNK", 2)
    real.deposit("buyer", ct=100)
    entries = links(*(receipt(seq) for seq in range(1, 8)))
    for transactions in range(4):
        left = iter(range(transactions))

        def update(fn: Any) -> Any:
            if next(left, None) is None:  # noqa: B023 - called at once
                raise Killed
            return real.update(fn)

        with pytest.raises(Killed):
            import_(real, file_of(entries), update=update)
    assert counts(import_of(real, entries))["applied"] == 1
    assert metrics_of(real) == (0, 7, 7)


def test_stop_in_a_later_transaction_tells_what_was_taken(
    real: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "CHUNK", 1)
    taken = import_of(real, links(receipt(1), receipt(2, provider="buyer")))
    assert (counts(taken), taken.stop is not None) == ({"applied": 1, "imported": 1}, True)


def test_page_lists_imports_by_market(market: Market) -> None:
    import_of(market, three())
    page, last = market.view(lambda txn: imports.page(txn, None, 2))
    assert [(each["market_id"], each["seq"]) for each in page] == [
        (THEIRS.hex(), 1),
        (THEIRS.hex(), 2),
    ]
    assert page[0]["status"] == "recorded"
    page, last = market.view(lambda txn: imports.page(txn, last, 2))
    assert ([each["seq"] for each in page], last) == ([3], None)
