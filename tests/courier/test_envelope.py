"""Envelopes and acknowledgements: what they say comes back, and any change of one is found out."""

import io
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from msgspec import json

from compute_market.courier import envelope
from compute_market.courier.envelope import (
    BUNDLES_MAX,
    LINE_BYTES_MAX,
    Acknowledgement,
    Taken,
    check_answer,
    check_trusted,
)
from compute_market.errors import IntegrityError, RefusedError
from compute_market.records import replace
from tests.support.deliveries import entry, envelope_of, handoff
from tests.support.effort import effort
from tests.support.importing import THEIRS
from tests.support.market import MARKET_ID
from tests.support.receipt_file import KEY, OTHER_KEY

ENTRIES = (entry(1), entry(2**64 - 1, b"", sender="bob", dest="http://h/"), handoff(3))
TEXT = envelope.text(THEIRS, KEY, ENTRIES)
TAKEN = (
    Taken(1, ENTRIES[0].bundle_hash, "taken"),
    Taken(2**64 - 1, ENTRIES[1].bundle_hash, "refused", "no \u2192 room"),
    Taken(3, ENTRIES[2].bundle_hash, "taken"),
)
ANSWER = envelope.acknowledgement(MARKET_ID, OTHER_KEY, envelope.parse(TEXT, "it"), TAKEN)
FILES: dict[str, tuple[bytes, Callable[[bytes, str], Any]]] = {
    "envelope": (TEXT, envelope.parse),
    "acknowledgement": (ANSWER, envelope.parse_acknowledgement),
}
EACH_FILE = pytest.mark.parametrize("name", FILES)


def reason(call: Callable[[], Any]) -> str | None:
    with pytest.raises(IntegrityError) as caught:
        call()
    return caught.value.reason


def lines(text: bytes = TEXT) -> list[bytes]:
    return text.splitlines(keepends=True)


def answer() -> Acknowledgement:
    return envelope.parse_acknowledgement(ANSWER, "the answer")


# What is said comes back.


def test_envelope_says_whose_it_is_and_what_is_in_it() -> None:
    found = envelope.parse(TEXT, "an envelope")
    assert (found.market_id, found.key.key_id) == (THEIRS, KEY.key_id)
    assert found.entries == ENTRIES
    assert found.digest == envelope.digest_of(TEXT)


def test_acknowledgement_says_what_became_of_each_bundle() -> None:
    found = answer()
    assert (found.market_id, found.to_market_id, found.key.key_id) == (
        MARKET_ID,
        THEIRS,
        OTHER_KEY.key_id,
    )
    assert found.envelope == envelope.digest_of(TEXT)
    assert found.taken == TAKEN
    assert ANSWER.count(b"\n") == 1


def test_long_error_is_clipped() -> None:
    taken = [replace(TAKEN[0], outcome="refused", error="x" * 10_000)]
    text = envelope.acknowledgement(MARKET_ID, OTHER_KEY, envelope_of(), taken)
    (found,) = envelope.parse_acknowledgement(text, "the answer").taken
    assert found.error is not None
    assert len(found.error) == 300


def test_first_line_is_as_it_is_documented() -> None:
    assert json.decode(lines()[0]) == {
        "format": "tb-bundles",
        "version": 1,
        "market_id": THEIRS.hex(),
        "public_key": KEY.public_key.hex(),
        "bundles": 3,
    }
    assert json.decode(lines()[3]) == {
        "id": "0000000000000003",
        "kind": "handoff",
        "bundle_hash": ENTRIES[2].bundle_hash.hex(),
        "bytes": 8,
        "sender": "alice",
        "dest": "dir:outbox",
        "timestamp_ms": ENTRIES[2].sent_ms,
        "job_id": "job",
    }


# What is changed is found out.


@EACH_FILE
def test_any_changed_bit_is_found_out(name: str) -> None:
    text, parse = FILES[name]
    places = range(8 * len(text))
    for place in Random(1).sample(places, effort(150, len(places))):
        changed = bytearray(text)
        changed[place // 8] ^= 1 << place % 8
        assert reason(lambda: parse(bytes(changed), name)) in ("malformed", "bad_signature")  # noqa: B023 - at once


@EACH_FILE
def test_any_cut_is_found_out(name: str) -> None:
    text, parse = FILES[name]
    cuts = range(len(text))
    for cut in {0, 1, len(text) - 1, *Random(1).sample(cuts, effort(40, len(cuts)))}:
        assert reason(lambda: parse(text[:cut], name)) == "malformed"  # noqa: B023 - at once


@EACH_FILE
@pytest.mark.parametrize("more", [b"\n", b"{}\n", b" ", b"\0"])
def test_more_behind_the_end_is_malformed(name: str, more: bytes) -> None:
    text, parse = FILES[name]
    assert reason(lambda: parse(text + more, name)) == "malformed"


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "1"},
        {"id": "000000000000000A"},
        {"id": "0000000000000002x"},
        {"kind": "letter"},
        {"kind": "handoff"},
        {"job_id": "job"},
        {"job_id": "no such\nid"},
        {"bundle_hash": "00"},
        {"bytes": -1},
        {"bytes": 2**63},
        {"bytes": "8"},
        {"sender": ""},
        {"sender": "../x"},
        {"dest": "x" * 5000},
        {"timestamp_ms": 1.5},
        {"more": 1},
    ],
    ids=str,
)
def test_line_of_wrong_fields_is_malformed(fields: dict[str, Any]) -> None:
    first, line, *rest = lines()
    line = json.encode(json.decode(line) | fields) + b"\n"
    assert reason(lambda: envelope.parse(b"".join((first, line, *rest)), "it")) == "malformed"


def test_lines_left_out_moved_or_repeated_are_found_out() -> None:
    first, one, two, three, last = lines()
    for changed in (
        (first, one, two, last),
        (first, one, one, three, last),
        (first, one, two, three, three, last),
        (one, first, two, three, last),
    ):
        assert reason(lambda: envelope.parse(b"".join(changed), "it")) == "malformed"  # noqa: B023 - at once
    swapped = b"".join((first, two, one, three, last))
    assert reason(lambda: envelope.parse(swapped, "it")) == "bad_signature"


def test_signature_of_another_key_market_or_purpose_is_bad() -> None:
    other = lines(envelope.text(THEIRS, OTHER_KEY, ENTRIES))
    assert reason(lambda: envelope.parse(b"".join((*lines()[:-1], other[-1])), "it")) == (
        "bad_signature"
    )
    market = lines(envelope.text(MARKET_ID, KEY, ENTRIES))
    assert reason(lambda: envelope.parse(b"".join((market[0], *lines()[1:])), "it")) == (
        "bad_signature"
    )
    signature = json.decode(lines()[-1])["signature"]
    forged = json.encode(json.decode(ANSWER) | {"signature": signature}) + b"\n"
    assert reason(lambda: envelope.parse_acknowledgement(forged, "it")) == "bad_signature"


@EACH_FILE
def test_file_of_another_format_is_named(name: str) -> None:
    _, parse = FILES[name]
    other = next(text for each, (text, _) in FILES.items() if each != name)
    with pytest.raises(IntegrityError, match="is asked for"):
        parse(other, "it")


# Reading one off a stream.


def test_envelope_is_read_off_a_stream_that_goes_on() -> None:
    stream = io.BytesIO(TEXT + b"bytes\nof the bundle")
    assert envelope.read(stream.readline, "it") == TEXT
    assert stream.read() == b"bytes\nof the bundle"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is cut off in line 1"),
        (TEXT[:-1], "it is cut off in line 5"),
        (b"x" * 10**6, f"more than {LINE_BYTES_MAX} bytes in line 1"),
        (b"{}\n" * 2000, f"more than {BUNDLES_MAX} bundles"),
        (lines()[0] + b"y" * (LINE_BYTES_MAX + 1) + b"\n", "more than .* in line 2"),
    ],
)
def test_what_is_no_envelope_is_read_no_further_than_one(content: bytes, problem: str) -> None:
    stream = io.BytesIO(content)
    with pytest.raises(IntegrityError, match=problem):
        envelope.read(stream.readline, "it")
    assert stream.tell() <= (BUNDLES_MAX + 2) * (LINE_BYTES_MAX + 1)


def test_envelope_of_the_most_bundles_is_read() -> None:
    text = envelope.text(THEIRS, KEY, [entry(n) for n in range(BUNDLES_MAX)])
    assert envelope.read(io.BytesIO(text).readline, "it") == text
    assert len(envelope.parse(text, "it").entries) == BUNDLES_MAX


# Who is believed, and what answers what.


def test_key_that_is_not_trusted_is_refused() -> None:
    check_trusted((KEY.key_id.hex(),), THEIRS, KEY, "an envelope")
    with pytest.raises(RefusedError, match="not trusted") as caught:
        check_trusted((OTHER_KEY.key_id.hex(),), THEIRS, KEY, "an envelope")
    assert caught.value.reason == "untrusted_key"
    assert caught.value.hint is not None
    assert KEY.key_id.hex() in caught.value.hint


def test_answer_to_what_was_sent_says_what_became_of_it() -> None:
    told = check_answer(answer(), THEIRS, envelope.digest_of(TEXT), ENTRIES)
    assert told == {each.receipt_id: each for each in TAKEN}


@pytest.mark.parametrize(
    "changes",
    [
        {"to_market_id": MARKET_ID},
        {"envelope": bytes(32)},
        {"taken": TAKEN[:2]},
        {"taken": (*TAKEN, TAKEN[0])},
        {"taken": (*TAKEN[:2], replace(TAKEN[2], receipt_id=4))},
        {"taken": (*TAKEN[:2], replace(TAKEN[2], bundle_hash=bytes(32)))},
    ],
)
def test_answer_to_something_else_is_refused(changes: dict[str, Any]) -> None:
    other = replace(answer(), **changes)
    assert (
        reason(lambda: check_answer(other, THEIRS, envelope.digest_of(TEXT), ENTRIES))
        == "other_answer"
    )
