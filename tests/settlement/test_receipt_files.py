"""Files of receipts: what is exported, what verifies, and which line of what else is wrong."""

import random
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import pytest
from msgspec import json

from compute_market.errors import IntegrityError, NotFoundError, UsageError
from compute_market.receipt_records import Receipt
from compute_market.records import replace
from compute_market.settlement import (
    modes,
    receipt_chain,
    receipt_export,
    receipt_files,
    receipts,
    state_root,
)
from compute_market.settlement.receipt_chain import GENESIS
from compute_market.settlement.receipt_files import (
    LINE_BYTES_MAX,
    entries,
    receipt_line,
    verify,
)
from compute_market.signatures import signatures
from compute_market.store.schema import RECEIPT_CHAIN, RECEIPTS, pack_u64
from compute_market.store.txn import Txn
from tests.support.effort import effort
from tests.support.market import MARKET_ID, Market
from tests.support.receipt_file import (
    KEY,
    OTHER_KEY,
    chained,
    exported,
    receipt,
    receipts_of,
    signed,
)
from tests.support.state import put_payload, three_receipts

Lines = list[bytes]


@pytest.fixture
def market_of_three(market: Market) -> Market:
    three_receipts(market)
    return market


@pytest.fixture(scope="module")
def three() -> Lines:
    """A file of three receipts: lines 2, 3 and 4."""
    return signed(list(chained([receipt(1), receipt(2), receipt(3)])))


@pytest.fixture
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A market of three receipts that is not audited at the end."""
    found = Market(tmp_path_factory.mktemp("damaged") / "market")
    three_receipts(found)
    yield found
    found.store.close()


def refusal(lines: Sequence[bytes], **options: bytes) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        verify(lines, **options)
    return caught.value


def changed(lines: Lines, number: int, **fields: object) -> Lines:
    """The lines with other fields in one of them."""
    document = json.decode(lines[number - 1]) | fields
    return [*lines[: number - 1], json.encode(document) + b"\n", *lines[number:]]


# What is exported.


@pytest.mark.parametrize("page", [1, 2, 3, 100])
def test_export_verifies_and_has_every_receipt(market_of_three: Market, page: int) -> None:
    market = market_of_three
    lines = exported(market, page=page)
    verified = verify(lines)
    head = market.view(lambda txn: receipt_chain.head(txn))
    assert (verified.receipts, verified.from_seq, verified.to_seq) == (3, 1, 3)
    assert (verified.from_link, (verified.to_seq, verified.to_link)) == (GENESIS, head)
    assert (verified.market_id, verified.public_key) == (MARKET_ID, KEY.public_key)
    assert verified.state_root == market.view(state_root.root)
    stored = market.view(lambda txn: list(txn.records(RECEIPTS)))
    found = list(entries(lines))
    assert [each.receipt for each in found] == sorted(stored, key=lambda each: each.seq)
    assert [each.seq for each in found] == [1, 2, 3]
    assert found[-1].link == verified.to_link


def test_file_is_as_documented(three: Lines) -> None:
    first, line, last = (json.decode(three[number]) for number in (0, 1, -1))
    assert list(first) == [
        *("format", "version", "market_id", "public_key", "from_seq", "from_link"),
    ]
    assert list(line) == [
        *("seq", "link", "version", "job_id", "buyer", "provider", "quote_price", "units"),
        *("issued_at", "idempotency_key", "lane", "dry_run"),
    ]
    assert list(last) == [
        *("receipts", "to_seq", "to_link", "mode", "height", "state_root", "signature"),
    ]


def test_export_of_no_receipts_verifies(market: Market) -> None:
    lines = exported(market)
    assert len(lines) == 2
    verified = verify(lines)
    assert (verified.receipts, verified.from_seq, verified.to_seq) == (0, 1, 0)
    assert (verified.from_link, verified.to_link) == (GENESIS, GENESIS)
    assert list(entries(lines)) == []


@pytest.mark.parametrize(
    ("from_seq", "to_seq", "seqs"),
    [(1, 1, [1]), (2, 3, [2, 3]), (3, None, [3]), (4, None, [])],
)
def test_range_goes_on_behind_the_file_before(
    market_of_three: Market, from_seq: int, to_seq: int | None, seqs: list[int]
) -> None:
    lines = exported(market_of_three, from_seq, to_seq)
    link = market_of_three.view(lambda txn: receipt_chain.digest(txn, from_seq - 1))
    verified = verify(lines, from_link=link, key_id=KEY.key_id)
    assert [each.seq for each in entries(lines)] == seqs
    assert (verified.from_seq, verified.receipts) == (from_seq, len(seqs))
    # A state is that of the moment, whatever the range.
    assert verified.state_root == verify(exported(market_of_three)).state_root


@pytest.mark.parametrize(
    ("from_seq", "to_seq", "error", "says"),
    [
        (5, None, NotFoundError, "there is no receipt 5: the last one is 3"),
        (1, 4, NotFoundError, "there is no receipt 4: the last one is 3"),
        (3, 2, UsageError, "receipt 2 comes before receipt 3"),
    ],
)
def test_range_that_is_not_there_is_refused(
    market_of_three: Market, from_seq: int, to_seq: int | None, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        exported(market_of_three, from_seq, to_seq)


def test_receipts_that_come_while_exporting_stay_out(market_of_three: Market) -> None:
    market = market_of_three
    section = market.view(lambda txn: receipt_export.section(txn))
    found = receipts_of(market, section, page=1)
    seqs = [next(found).seq]
    market.submit("later")
    market.prove("later")
    market.update(lambda txn: modes.arm(txn, 100))
    seqs += [each.seq for each in found]
    assert seqs == [1, 2, 3]
    assert market.view(lambda txn: receipt_chain.head(txn))[0] == 4


Damage = Callable[[Market, bytes], None]


def _scrub(market: Market, key: bytes) -> None:
    _damage(market, key)
    market.alone(lambda txn: receipts.quarantine_if_damaged(txn, key))


def _damage(market: Market, key: bytes) -> None:
    market.alone(lambda txn: put_payload(txn, RECEIPTS, key, b"\xc1"))


def _rewrite(market: Market, key: bytes) -> None:
    def act(txn: Txn) -> None:
        txn.write(RECEIPTS, key, replace(txn.must_read(RECEIPTS, key), units=99))

    market.alone(act)


def _remove(market: Market, key: bytes) -> None:
    market.alone(lambda txn: txn.delete(RECEIPTS, key))


def _unlink(market: Market, key: bytes) -> None:
    market.alone(lambda txn: txn.delete(RECEIPT_CHAIN, pack_u64(2)))


@pytest.mark.parametrize("damage", [_damage, _scrub, _rewrite, _remove, _unlink])
def test_export_refuses_a_damaged_receipt_and_names_it(damaged: Market, damage: Damage) -> None:
    (key,) = [each.receipt.idempotency_key for each in entries(exported(damaged, 2, 2))]
    damage(damaged, key)
    with pytest.raises(IntegrityError, match="receipt 2 cannot be exported: it is "):
        exported(damaged)
    # What stands behind it is in order.
    if damage is not _unlink:
        assert verify(exported(damaged, 3)).receipts == 1


# What is refused: each attack, the first line that is wrong, and the reason.


def rechained(lines: Lines, number: int, **fields: object) -> Lines:
    """A receipt that was changed together with its link, by who has no key."""
    found = list(entries(lines))
    new = [each.receipt for each in found]
    new[number - 2] = _refit(new[number - 2], **fields)
    made = [receipt_line(each) for each in chained(new)]
    return [*lines[: number - 1], made[number - 2], *lines[number:]]


def all_rechained(lines: Lines, number: int, **fields: object) -> Lines:
    """The same with all links behind it, and with the last line made to fit but for signing."""
    found = [each.receipt for each in entries(lines)]
    found[number - 2] = _refit(found[number - 2], **fields)
    made = list(chained(found))
    last = changed(lines, len(lines), to_link=made[-1].link.hex())[-1]
    return [lines[0], *map(receipt_line, made), last]


def _refit(old: Receipt, **fields: object) -> Receipt:
    new = replace(old, **fields)
    return replace(new, idempotency_key=receipts.key_of_fields(new))


def other_market(lines: Lines) -> Lines:
    """A file of three other receipts."""
    return signed(list(chained([receipt(seq, job_id=f"other-{seq}") for seq in (1, 2, 3)])))


def signed_for(purpose: signatures.Purpose) -> Lines:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(receipt_files, "RECEIPTS", purpose)
        return signed(list(chained([receipt(1), receipt(2), receipt(3)])))


def wrong_key(lines: Lines) -> Lines:
    """A market that signs what it should not have issued."""
    wrong = replace(receipt(2), idempotency_key=bytes(32))
    return signed(list(chained([receipt(1), wrong, receipt(3)])))


def text(lines: Lines, number: int, old: bytes, new: bytes) -> Lines:
    assert old in lines[number - 1]
    return [*lines[: number - 1], lines[number - 1].replace(old, new, 1), *lines[number:]]


Attack = Callable[[Lines], Lines]
ATTACKS: dict[str, tuple[Attack, int, str]] = {
    # Left out, put in, moved.
    "nothing": (lambda f: [], 1, "malformed"),
    "without its last line": (lambda f: f[:-1], 5, "malformed"),
    "only its first line": (lambda f: f[:1], 2, "malformed"),
    "cut in its last line": (lambda f: [*f[:-1], f[-1][:-9]], 5, "malformed"),
    "without its last newline": (lambda f: [*f[:-1], f[-1][:-1]], 5, "malformed"),
    "cut in a receipt": (lambda f: [*f[:2], f[2][:50]], 3, "malformed"),
    "without its first line": (lambda f: f[1:], 1, "malformed"),
    "a blank line behind it": (lambda f: [*f, b"\n"], 6, "malformed"),
    "a receipt behind it": (lambda f: [*f, f[3]], 6, "malformed"),
    "the last line twice": (lambda f: [*f, f[-1]], 6, "malformed"),
    "the first line twice": (lambda f: [f[0], *f], 2, "malformed"),
    "a blank line": (lambda f: [*f[:2], b"\n", *f[2:]], 3, "malformed"),
    "without the first receipt": (lambda f: [f[0], *f[2:]], 2, "bad_chain"),
    "without one in the middle": (lambda f: [*f[:2], *f[3:]], 3, "bad_chain"),
    "without the last receipt": (lambda f: [*f[:3], f[-1]], 4, "bad_chain"),
    "without any": (lambda f: [f[0], f[-1]], 2, "bad_chain"),
    "two exchanged": (lambda f: [f[0], f[2], f[1], *f[3:]], 2, "bad_chain"),
    "one twice": (lambda f: [*f[:3], *f[2:]], 4, "bad_chain"),
    "one of another market": (lambda f: [*f[:2], other_market(f)[2], *f[3:]], 3, "bad_chain"),
    "all of another market": (lambda f: [f[0], *other_market(f)[1:4], f[-1]], 5, "bad_chain"),
    "numbers moved by one": (lambda f: changed(f, 2, seq=2), 2, "bad_chain"),
    # Changed.
    "another link": (lambda f: changed(f, 3, link="ab" * 32), 3, "bad_chain"),
    "with its link": (lambda f: rechained(f, 3, units=9), 4, "bad_chain"),
    "the last with its link": (lambda f: rechained(f, 4, units=9), 5, "bad_chain"),
    "with every link": (lambda f: all_rechained(f, 3, units=9), 5, "bad_signature"),
    "key of other fields": (wrong_key, 3, "bad_chain"),
    "begins elsewhere": (lambda f: changed(f, 1, from_link="ab" * 32), 1, "bad_chain"),
    "begins later": (lambda f: changed(f, 1, from_seq=2), 1, "bad_chain"),
    "begins later elsewhere": (
        lambda f: changed(f, 1, from_seq=2, from_link="ab" * 32),
        2,
        "bad_chain",
    ),
    "ends elsewhere": (lambda f: changed(f, 5, to_link="ab" * 32), 5, "bad_chain"),
    "ends later": (lambda f: changed(f, 5, to_seq=4), 5, "bad_chain"),
    "counts wrong": (lambda f: changed(f, 5, receipts=4), 5, "bad_chain"),
    # Signed otherwise.
    "another market": (lambda f: changed(f, 1, market_id="ab" * 16), 5, "bad_signature"),
    "another key": (
        lambda f: changed(f, 1, public_key=OTHER_KEY.public_key.hex()),
        5,
        "bad_signature",
    ),
    "another state": (lambda f: changed(f, 5, state_root="ab" * 32), 5, "bad_signature"),
    "another mode": (lambda f: changed(f, 5, mode="real"), 5, "bad_signature"),
    "another height": (lambda f: changed(f, 5, height=8), 5, "bad_signature"),
    "signature of another file": (
        lambda f: [*f[:-1], changed(f, 5, signature=_signature_of(other_market(f)))[-1]],
        5,
        "bad_signature",
    ),
    "signed for a bid": (lambda f: signed_for("tb/bid-commit/v1"), 5, "bad_signature"),
    # Written otherwise.
    "carriage returns": (lambda f: [line[:-1] + b"\r\n" for line in f], 1, "malformed"),
    "a carriage return": (lambda f: text(f, 3, b"\n", b"\r\n"), 3, "malformed"),
    "a byte order mark": (lambda f: [b"\xef\xbb\xbf" + f[0], *f[1:]], 1, "malformed"),
    "a space": (lambda f: text(f, 3, b":", b": "), 3, "malformed"),
    "a field twice": (lambda f: text(f, 3, b'"units":1', b'"units":9,"units":1'), 3, "malformed"),
    "another field": (lambda f: changed(f, 3, paid=1), 3, "malformed"),
    "a field escaped": (lambda f: text(f, 3, b"buyer", b"b\\u0075yer"), 3, "malformed"),
    "upper case": (lambda f: changed(f, 3, link="AB" * 32), 3, "malformed"),
    "a short link": (lambda f: changed(f, 3, link="ab" * 31), 3, "malformed"),
    "a short signature": (lambda f: changed(f, 5, signature="ab" * 64), 5, "malformed"),
    "a short public key": (lambda f: changed(f, 1, public_key="ab" * 64), 1, "malformed"),
    "a long market id": (lambda f: changed(f, 1, market_id="ab" * 17), 1, "malformed"),
    "another format": (lambda f: changed(f, 1, format="tb-bids"), 1, "malformed"),
    "a later version": (lambda f: changed(f, 1, version=2), 1, "malformed"),
    "below zero": (lambda f: changed(f, 3, units=-1), 3, "malformed"),
    "no integer": (lambda f: changed(f, 3, units=1.5), 3, "malformed"),
    "more than an amount": (lambda f: changed(f, 3, units=2**63), 3, "malformed"),
    "more than any number": (lambda f: changed(f, 3, seq=2**64), 3, "malformed"),
    "a version of three bytes": (lambda f: changed(f, 3, version=2**16), 3, "malformed"),
    "an id that is none": (lambda f: changed(f, 3, buyer="a b"), 3, "malformed"),
    "an empty id": (lambda f: changed(f, 3, provider=""), 3, "malformed"),
    "a field of any length": (lambda f: changed(f, 3, **{"x" * 60_000: 1}), 3, "malformed"),
    "a format of any length": (lambda f: changed(f, 1, format="x" * 60_000), 1, "malformed"),
    "a lane that is none": (lambda f: changed(f, 3, lane="fast"), 3, "malformed"),
    "no text": (lambda f: [f[0], b"\xff\xfe\n", *f[1:]], 2, "malformed"),
    "a line too long": (lambda f: [f[0], b" " * LINE_BYTES_MAX + b"\n", *f[1:]], 2, "malformed"),
}


def _signature_of(lines: Lines) -> str:
    found: str = json.decode(lines[-1])["signature"]
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_first_wrong_line_is_named(three: Lines, name: str) -> None:
    attack, line, reason = ATTACKS[name]
    error = refusal(attack(list(three)))
    assert (error.details["line"], error.reason) == (line, reason), error.message
    assert error.message.startswith(f"line {line}: ")
    assert len(error.message) < 400
    # Receipts before that line are given, and none behind it.
    taken = []
    with suppress(IntegrityError):
        for each in entries(attack(list(three))):
            taken.append(each.seq)
    assert taken == [1, 2, 3][: max(0, line - 2)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("job_id", "j"), ("buyer", "b"), ("provider", "p"), ("quote_price", 6), ("units", 2)),
        *(("issued_at", 1), ("idempotency_key", "ab" * 32), ("lane", "consumer")),
        *(("dry_run", True), ("version", 2)),
    ],
)
@pytest.mark.parametrize("line", [2, 3, 4])
def test_every_field_of_a_receipt_is_bound(
    three: Lines, line: int, field: str, value: object
) -> None:
    error = refusal(changed(three, line, **{field: value}))
    assert (error.details["line"], error.reason) == (line, "bad_chain")


def test_who_signed_and_what_it_follows_can_be_demanded(three: Lines) -> None:
    assert verify(three, key_id=KEY.key_id, from_link=GENESIS).receipts == 3
    error = refusal(three, key_id=OTHER_KEY.key_id)
    assert (error.details["line"], error.reason) == (1, "bad_signature")
    for key in (KEY, OTHER_KEY):
        assert key.key_id.hex() in error.message
    error = refusal(three, from_link=bytes(31) + b"\1")
    assert (error.details["line"], error.reason) == (1, "bad_chain")


def test_any_flipped_bit_is_found(three: Lines) -> None:
    """Each bit of the file in `make torture`, else some of every line."""
    verify(three)
    draw = random.Random(9)
    for number, line in enumerate(three, 1):
        bits = len(line) * 8
        for bit in draw.sample(range(bits), min(bits, effort(60, bits))):
            flipped = bytearray(line)
            flipped[bit // 8] ^= 1 << bit % 8
            # As who reads the file would cut it into lines.
            whole = b"".join([*three[: number - 1], bytes(flipped), *three[number:]])
            error = refusal(whole.splitlines(keepends=True))
            assert error.reason in ("malformed", "bad_chain", "bad_signature"), bit
            # What stands before it is right; what was a line break may be another line now.
            assert error.details["line"] >= number, bit


def test_memory_does_not_grow_with_the_file() -> None:
    count = effort(3_000, 100_000)
    lines = signed(list(chained([receipt(seq) for seq in range(1, count + 1)])))
    tracemalloc.start()
    try:
        assert verify(iter(lines)).receipts == count
        assert sum(1 for _ in entries(iter(lines))) == count
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**19
