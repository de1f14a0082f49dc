"""Scores that markets tell each other: what is told, what is believed, and what is news."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market.errors import IntegrityError, MarketError, RefusedError
from compute_market.offers import standing
from compute_market.records import Score
from compute_market.reputation import gossip, reputation
from compute_market.reputation.decay import decayed
from compute_market.reputation.gossip import ENTRIES_MAX, Applied, Told
from compute_market.signatures import canonical, keys, signatures
from compute_market.store.txn import Txn
from tests.support.market import MARKET_ID, START_MS, Market

START = START_MS // 1000
DAY = 86_400
KEY = keys.key_of(bytes(range(32)))
TRUSTED = (KEY.key_id.hex(),)
THEIRS = bytes(range(16))


def message(*entries: Told, market_id: bytes = THEIRS) -> bytes:
    (text,) = gossip.messages(entries, KEY, market_id, START_MS)
    return text


def take(market: Market, *entries: Told) -> Applied:
    found = gossip.parse(message(*entries))
    gossip.verify(found, TRUSTED)
    return market.update(lambda txn: standing.take_gossip(txn, found))


def told(market: Market) -> list[Told]:
    return market.view(lambda txn: gossip.told(txn, reputation.entries(txn)))


def entry(market: Market, provider: str = "prov") -> Score | None:
    return market.view(lambda txn: reputation.entry(txn, provider))


def counted(market: Market) -> tuple[int, int]:
    return (
        market.counter("reputation_gossip_total", "applied"),
        market.counter("reputation_gossip_total", "ignored"),
    )


# What is taken.


@pytest.mark.parametrize(
    ("ahead", "score", "outcome"),
    [
        (1, 5, Applied(1)),
        (0, 5, Applied(0, 1)),
        (-1, 5, Applied(0, 1)),
        (300, 1000, Applied(1)),
        (301, 5, Applied(0, 0, 1)),
        (2**62, 5, Applied(0, 0, 1)),
        (1, 1001, Applied(0, 0, 0, 1)),
        (1, -1001, Applied(0, 0, 0, 1)),
        (1, -1000, Applied(1, crossed=("prov",))),
    ],
)
def test_entry_is_applied_or_ignored(
    market: Market, ahead: int, score: int, outcome: Applied
) -> None:
    market.post(reputation=6)
    market.update(lambda txn: standing.record_outcome(txn, "prov", 1))
    before = entry(market)
    assert take(market, Told("prov", score, START + ahead)) == outcome
    assert counted(market) == (outcome.applied, outcome.ignored)
    if outcome.applied:
        after = Score(score, 0, START + ahead, START_MS, score < 0)
        assert entry(market) == after
        (logged,) = market.events("score_gossiped")
        assert logged.event.owner == "prov"
        assert logged.event.detail == {"score": score, "was": 7, "market_id": THEIRS.hex()}
    else:
        assert entry(market) == before
        assert market.events("score_gossiped") == []


def test_ignored_entries_write_nothing_of_scores(market: Market) -> None:
    market.post()

    def action(txn: Txn) -> int:
        writes = txn.writes
        gossip.apply(txn, gossip.parse(message(*[Told(f"p{n}", 2000, 5) for n in range(99)])))
        return txn.writes - writes

    assert market.update(action, dry_run=True) == 1  # the counter


def test_unknown_provider_has_epoch_zero(market: Market) -> None:
    market.configure(reputation_decay_ppm=0)  # Otherwise so early an epoch is over.
    assert take(market, Told("new", 5, 0)) == Applied(0, 1)
    assert take(market, Told("new", 5, 1)) == Applied(1)
    assert market.score("new") == 5
    assert market.view(lambda txn: reputation.earned(txn, "new")) == 5


@pytest.mark.parametrize("ahead", [0, -1, -DAY])
def test_word_of_another_market_beats_what_a_provider_says(market: Market, ahead: int) -> None:
    market.post(reputation=1000)
    assert take(market, Told("prov", -5, START + ahead)) == Applied(1, crossed=("prov",))
    market.post(reputation=1000)
    assert market.view(lambda txn: reputation.earned(txn, "prov")) == market.score() < 0


def test_match_sees_an_applied_entry_at_once(market: Market) -> None:
    market.deposit("prov", ct=100)
    offer = market.post(reputation=5)
    take(market, Told("prov", -1, START + 1))
    assert market.submit("a").reason == "reputation_failure"
    assert market.offer(offer.offer_id).shelf == "barred"
    take(market, Told("prov", 0, START + 2))
    market.submit("b")
    assert market.job("b").placed.offer_id == offer.offer_id


def test_applied_entry_fades_from_its_epoch_on(market: Market) -> None:
    take(market, Told("prov", -100, START - DAY))
    assert market.score() == -95
    (logged,) = market.events("score_gossiped")
    assert logged.event.detail["score"] == -95
    market.advance(DAY)
    assert market.score() == -90


def test_entry_of_a_moment_that_is_to_come_fades_from_now_on(market: Market) -> None:
    take(market, Told("prov", 100, START + 300))
    market.advance(DAY)
    assert market.score() == 95


# 0.95^14 is less than a half; then it is kept for a week.
@pytest.mark.parametrize(
    ("days", "score", "outcome", "shelf"),
    [
        (13, -1, Applied(1, crossed=("prov",)), "barred"),
        (14, -1, Applied(1), "open"),
        (21, -1, Applied(1), "open"),
        (22, -1, Applied(0, 1), "open"),
        (7, 0, Applied(1), "open"),
        (8, 0, Applied(0, 1), "open"),
        (100, -1000, Applied(1, crossed=("prov",)), "barred"),
    ],
)
def test_entry_that_has_faded_bars_nobody_and_is_old_in_the_end(
    market: Market, days: int, score: int, outcome: Applied, shelf: str
) -> None:
    market.deposit("prov", ct=100)
    assert take(market, Told("prov", score, START - days * DAY)) == outcome
    offer = market.post()
    assert market.offer(offer.offer_id).shelf == shelf


def test_score_that_does_not_fade_here_never_grows_old(market: Market) -> None:
    market.configure(reputation_decay_ppm=0)
    assert take(market, Told("prov", -1, 1)) == Applied(1, crossed=("prov",))


@pytest.mark.parametrize("points", [-1, -30, 12])
def test_word_that_goes_back_and_forth_fades_like_any_other(
    market: Market, tmp_path: Path, points: int
) -> None:
    theirs = Market(tmp_path / "theirs")
    market.update(lambda txn: standing.pardon(txn, "prov", points, "r"))
    for days in range(1, 120):
        market.advance(DAY)
        theirs.advance(DAY)
        for here, there in ((market, theirs), (theirs, market)):
            take(there, *told(here))
        expected = decayed(points, 50_000, days)
        assert (market.score(), theirs.score()) == (expected, expected)
    assert (entry(market), entry(theirs)) == (None, None)
    # Nor does the very first word, heard again.
    assert take(theirs, Told("prov", points, START)) == Applied(0, 1)
    assert theirs.violations() == []
    theirs.store.close()


def test_local_change_comes_after_what_was_told(market: Market) -> None:
    take(market, Told("prov", 5, START + 200))
    market.update(lambda txn: standing.record_outcome(txn, "prov", 1))
    found = entry(market)
    assert found is not None
    assert (found.score, found.epoch) == (6, START + 201)


def test_messages_twice_and_out_of_order_come_to_the_same(market: Market) -> None:
    first = [Told("a", 1, START), Told("b", -1, START)]
    second = [Told("a", 2, START + 1), Told("b", 5, START - 1)]
    for entries in (second, first, first, second):
        take(market, *entries)
    assert (market.score("a"), market.score("b")) == (2, -1)
    assert counted(market) == (3, 5)


def test_entry_that_comes_twice_in_a_message_is_taken_once(market: Market) -> None:
    twice = Told("prov", -1, START)
    assert take(market, twice, twice) == Applied(1, 1, crossed=("prov",))


def test_text_says_why_entries_are_ignored() -> None:
    assert Applied(3, 1, 1, 2).text == (
        "applied 3, ignored 4 (1 not newer, 1 from the future, 2 no score)"
    )
    assert Applied(3).text == "applied 3, ignored 0"


def test_market_that_opted_out_listens_to_nobody(market: Market) -> None:
    market.configure(reputation_gossip=False)
    with pytest.raises(RefusedError) as caught:
        take(market, Told("prov", 5, START))
    assert caught.value.reason == "gossip_off"
    assert entry(market) is None


# What is told.


def test_market_tells_what_it_has_seen_and_not_what_providers_say(market: Market) -> None:
    market.post("boasts", reputation=1000)
    market.post("new")
    market.post("fails", reputation=900)
    for _ in range(2):
        market.update(lambda txn: standing.record_outcome(txn, "fails", -1))
    market.update(lambda txn: standing.record_outcome(txn, "works", 1))
    assert told(market) == [Told("fails", -2, START), Told("works", 1, START)]
    market.advance(30 * DAY)
    assert told(market) == []


def test_score_is_told_as_it_stood_at_its_epoch_until_it_has_faded(market: Market) -> None:
    take(market, Told("prov", -1, START))
    market.advance(14 * DAY - 1)
    assert told(market) == [Told("prov", -1, START)]
    market.advance(1)
    assert told(market) == []


def test_epoch_that_ran_ahead_is_told_as_now_until_time_has_come_so_far(market: Market) -> None:
    for _ in range(11):
        market.update(lambda txn: standing.record_outcome(txn, "prov", 1))
    found = []
    for _ in range(3):
        found += told(market)
        market.advance(6)
    assert found == [Told("prov", 11, START + ahead) for ahead in (0, 6, 10)]


def test_pardon_to_zero_is_told_for_the_retention(market: Market) -> None:
    take(market, Told("prov", -3, START))
    market.update(lambda txn: standing.pardon(txn, "prov", 3, "why not"))
    market.advance(1)
    assert told(market) == [Told("prov", 0, START + 1)]
    market.advance(7 * DAY)
    assert told(market) == [Told("prov", 0, START + 1)]
    market.advance(1)
    assert told(market) == []


# Messages.

ENTRIES = st.builds(
    Told,
    st.text("abcXYZ019_", min_size=1, max_size=8),
    st.integers(-(2**40), 2**40),
    st.integers(0, 2**63 - 1),
)


@given(st.lists(ENTRIES, max_size=20))
def test_message_is_parsed_as_it_was_written(entries: list[Told]) -> None:
    text = message(*entries)
    found = gossip.parse(text)
    assert list(found.entries) == entries
    assert (found.market_id, found.key.key_id, found.sent_at_ms) == (THEIRS, KEY.key_id, START_MS)
    gossip.verify(found, TRUSTED)


def test_many_entries_are_many_messages() -> None:
    entries = [Told(f"p{number}", 1, START) for number in range(2 * ENTRIES_MAX + 1)]
    long = [Told(f"{number:0128}", 1, START) for number in range(ENTRIES_MAX)]
    for given_, least in ((entries, 3), (long, 2)):
        texts = list(gossip.messages(given_, KEY, THEIRS, START_MS))
        assert len(texts) == least
        lines = b"".join(texts).splitlines(keepends=True)
        assert list(gossip.split(lines)) == texts
        parsed = [gossip.parse(text) for text in texts]
        assert [each for one in parsed for each in one.entries] == given_


def test_nothing_to_tell_is_a_message_without_entries() -> None:
    assert gossip.parse(message()).entries == ()


def test_file_that_is_cut_off_is_split_up_to_there() -> None:
    text = message(Told("a", 1, 1))
    lines = (text + text[:-1]).splitlines(keepends=True)
    whole, part = gossip.split(lines)
    assert whole == text
    with pytest.raises(IntegrityError, match=r"line 3: .*"):
        gossip.parse(part)


def test_line_that_does_not_end_stops_the_split() -> None:
    endless = iter(lambda: b"x" * 1000, b"")
    (text,) = gossip.split(endless)
    assert refused(text).message == "a message of scores has at most 1048576 bytes"


# A field that nobody asks for has to be gone through as well.
_DEEP = b'{"x":' + b"[" * 2000 + b"\n"


def refused(text: bytes, trusted: Any = TRUSTED) -> MarketError:
    with pytest.raises((IntegrityError, RefusedError)) as caught:
        gossip.verify(gossip.parse(text), trusted)
    error: MarketError = caught.value
    return error


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: [], "line 1: the message is empty"),
        (lambda lines: lines[:1], "line 2: the message ends before its last line"),
        (lambda lines: lines[:-1], "line 3: the message ends before its last line"),
        (lambda lines: [*lines, lines[-1]], "line 4: there is more behind the last line"),
        (lambda lines: [lines[0], lines[-1]], "line 2: 0 entries are found, 1 are told"),
        (lambda lines: [lines[0], lines[1][:-1]], "line 2: the message is cut off here"),
        (
            lambda lines: [lines[0], b"nothing\n", lines[2]],
            "line 2: the line of a score: no JSON: ",
        ),
        (
            lambda lines: [lines[0], b"[1,2,3]\n", lines[2]],
            "line 2: the line of a score: expected an object, got a list",
        ),
        (
            lambda lines: [lines[0], lines[1].replace(b"5", b'"5"'), lines[2]],
            "line 2: the line of a score: score: expected a whole number, got text",
        ),
        (lambda lines: [lines[0], lines[1].replace(b"5", b"5.0"), lines[2]], "line 2: "),
        (lambda lines: [lines[0], lines[1].replace(b"5", b"9" * 400), lines[2]], "line 2: "),
        (
            lambda lines: [lines[0], lines[1].replace(b'"prov"', b'"pr ov"'), lines[2]],
            "line 2: provider 'pr ov' has the character ' '",
        ),
        (lambda lines: [lines[0], lines[1].replace(b":", b": "), lines[2]], "line 2: the line of"),
        (
            lambda lines: [lines[0].replace(b'"version":1', b'"version":2'), *lines[1:]],
            "line 1: it is a file of format tb-gossip, version 2; tb-gossip, version 1, is asked",
        ),
        (lambda lines: [lines[0].replace(b"00", b"0G", 1), *lines[1:]], "line 1: market_id is not"),
        (lambda lines: [b"\xff\n", *lines[1:]], "line 1: "),
        (lambda lines: [_DEEP, *lines[1:]], "line 1: "),
        (lambda lines: [lines[0], _DEEP, lines[2]], "line 2: "),
    ],
)
def test_what_is_no_message_is_malformed(change: Any, says: str) -> None:
    text = message(Told("prov", 5, START))
    error = refused(b"".join(change(text.splitlines(keepends=True))))
    assert (error.reason, error.exit_code) == ("malformed", 9)
    assert error.message.startswith(says)
    assert len(error.message) < 400


def test_message_with_too_many_entries_is_malformed() -> None:
    line = canonical.line(gossip._Line("p", 1, 1))
    text = message()
    first, last = text.splitlines(keepends=True)
    error = refused(first + line * (ENTRIES_MAX + 1) + last)
    assert error.message == f"line {ENTRIES_MAX + 2}: a message has at most {ENTRIES_MAX} entries"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"score":5', '"score":6'),
        ('"prov"', '"prow"'),
        (str(START_MS), str(START_MS + 1)),
        (THEIRS.hex(), MARKET_ID.hex()),
    ],
)
def test_message_that_was_changed_has_a_bad_signature(old: str, new: str) -> None:
    text = message(Told("prov", 5, START))
    error = refused(text.replace(old.encode(), new.encode()))
    assert (error.reason, error.exit_code) == ("bad_signature", 9)


def test_signature_for_another_purpose_is_none() -> None:
    text = message(Told("prov", 5, START))
    found = gossip.parse(text)
    assert KEY.seed is not None
    signature = signatures.sign(KEY.seed, found.signed, signatures.RECEIPTS)
    error = refused(text.replace(found.signature.hex().encode(), signature.hex().encode()))
    assert error.reason == "bad_signature"


def test_message_of_a_key_that_is_not_trusted_is_refused() -> None:
    error = refused(message(Told("prov", 5, START)), ())
    assert (error.reason, error.exit_code) == ("untrusted_key", 5)
    assert KEY.key_id.hex() in error.message
