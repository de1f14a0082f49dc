"""Attacks on what a sealed bid is made of: any change of any of it is found out."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from blake3 import blake3

from compute_market.bids import bid_files, sealing
from compute_market.bids.sealing import BidTx, Opening, Reveal
from compute_market.errors import IntegrityError, MarketError, UsageError
from compute_market.records import replace
from compute_market.signatures import keys, signatures
from compute_market.signatures.signatures import RECEIPTS, Purpose, framed
from tests.support.bids import ALICE, MALLORY, SALT, seal, state
from tests.support.effort import effort
from tests.support.market import MARKET_ID
from tests.support.verbs import OPENED as OPENED_FILE
from tests.support.verbs import SEALED as SEALED_FILE

SEALED = seal(height=7, sequence=3)
REVEAL = sealing.sign_reveal(SEALED.opening, ALICE)
FILES: dict[str, tuple[bytes, Callable[[bytes, str], Any]]] = {
    "bid": (bid_files.bid_text(SEALED.bid_tx), bid_files.parse_bid),
    "reveal": (bid_files.reveal_text(REVEAL), bid_files.parse_reveal),
    "secret": (bid_files.secret_text(SEALED), bid_files.parse_secret),
}
EACH_FILE = pytest.mark.parametrize("name", FILES)
REASONS = ("malformed", "bad_commitment", "bad_signature")


def reason(call: Callable[[], Any]) -> str:
    with pytest.raises(IntegrityError) as caught:
        call()
    assert caught.value.reason is not None
    return caught.value.reason


def flipped(content: bytes, bit: int) -> bytes:
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


def some_bits(content: bytes, few: int) -> list[int]:
    """All bits of the first and the last byte, and others by chance; in the torture all."""
    length = 8 * len(content)
    many = Random(len(content)).sample(range(length), min(length, effort(few, length)))
    return sorted({*range(8), *range(length - 8, length), *many})


@EACH_FILE
def test_file_reads_back_as_it_was(name: str) -> None:
    text, parse = FILES[name]
    found = {"bid": SEALED.bid_tx, "reveal": REVEAL, "secret": SEALED}[name]
    assert parse(text, "it") == found
    assert text.count(b"\n") == 1


def test_files_of_an_older_release_are_read() -> None:
    """What was written once must be read for ever: no change of format goes unnoticed."""
    sealed = bid_files.parse_bid(Path(SEALED_FILE).read_bytes(), "it")
    opened = bid_files.parse_reveal(Path(OPENED_FILE).read_bytes(), "it")
    sealing.check_reveal(sealed, opened)
    assert sealed.bid_id == seal().bid_tx.bid_id
    assert opened.opening == seal().opening


@EACH_FILE
def test_flipped_bit_of_a_file_is_refused(name: str) -> None:
    text, parse = FILES[name]
    for bit in some_bits(text, 400):
        assert reason(lambda bit=bit: parse(flipped(text, bit), "it")) in REASONS, bit


@EACH_FILE
def test_digit_that_is_another_is_refused(name: str) -> None:
    """What stays canonical: one digit of any value for another."""
    text, parse = FILES[name]
    places = [at for at, byte in enumerate(text) if chr(byte).isdigit()]
    for at in Random(1).sample(places, min(len(places), effort(200, len(places)))):
        digit = b"%d" % ((text[at] - ord("0") + 1) % 10)
        changed = text[:at] + digit + text[at + 1 :]
        assert reason(lambda text=changed: parse(text, "it")) in REASONS, at


@EACH_FILE
def test_cut_or_longer_file_is_refused(name: str) -> None:
    text, parse = FILES[name]
    lengths = range(0, len(text), effort(997, 1))
    for changed in (
        *(text[:length] for length in lengths),
        text + b"\n",
        text + text,
        b"\0" + text,
    ):
        assert reason(lambda text=changed: parse(text, "it")) == "malformed"


@pytest.mark.parametrize(
    "number", ["-1", "9223372036854775808", "1e3", "7.0", "true", '"7"', "null"]
)
@pytest.mark.parametrize("field", ["height", "sequence"])
@EACH_FILE
def test_number_that_is_none_is_malformed(name: str, field: str, number: str) -> None:
    text, parse = FILES[name]
    before = {"height": b'"height":7', "sequence": b'"sequence":3'}[field]
    changed = text.replace(before, f'"{field}":{number}'.encode())
    assert reason(lambda: parse(changed, "it")) == "malformed"


def test_flipped_bit_of_salt_or_state_is_another_commitment() -> None:
    opening = SEALED.opening
    for field in ("salt", "state"):
        content = getattr(opening, field)
        for bit in some_bits(content, 40):
            other = replace(opening, **{field: flipped(content, bit)})
            opened = sealing.sign_reveal(other, ALICE)
            found = reason(lambda opened=opened: sealing.check_reveal(SEALED.bid_tx, opened))
            assert found == "bad_commitment"


def test_flipped_bit_of_a_signature_is_refused() -> None:
    bid_tx = SEALED.bid_tx
    for bit in some_bits(bid_tx.signature, 100):
        other = replace(bid_tx, signature=flipped(bid_tx.signature, bit))
        assert reason(lambda other=other: sealing.check_bid_tx(other)) == "bad_signature"
        opened = replace(REVEAL, signature=flipped(REVEAL.signature, bit))
        found = reason(lambda opened=opened: sealing.check_reveal(bid_tx, opened))
        assert found == "bad_signature"


# Each is what an attacker who sees everything that is broadcast, or learns the salt, could try.
def _other_terms(**changes: Any) -> BidTx:
    return replace(SEALED.bid_tx, terms=replace(SEALED.bid_tx.terms, **changes))


def _signed(key: keys.Key, message: bytes, purpose: Purpose) -> bytes:
    assert key.seed is not None
    return signatures.sign(key.seed, message, purpose)


def _opened(
    opening: Opening, key: keys.Key = ALICE, purpose: Purpose = "tb/bid-reveal/v1"
) -> Reveal:
    message = framed(opening.commitment, opening.salt, opening.state)
    return Reveal(opening, _signed(key, message, purpose))


TABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "commit for another market": (
        lambda: sealing.check_bid_tx(_other_terms(market_id=b"\1" * 16)),
        "bad_signature",
    ),
    "commit as if by another key": (
        lambda: sealing.check_bid_tx(_other_terms(public_key=MALLORY.public_key)),
        "bad_signature",
    ),
    "commit at another height": (
        lambda: sealing.check_bid_tx(_other_terms(height=8)),
        "bad_signature",
    ),
    "commit with another sequence": (
        lambda: sealing.check_bid_tx(_other_terms(sequence=4)),
        "bad_signature",
    ),
    "reveal signature as that of a commit": (
        lambda: sealing.check_bid_tx(replace(SEALED.bid_tx, signature=REVEAL.signature)),
        "bad_signature",
    ),
    "reveal signed for another purpose": (
        lambda: sealing.check_signed(_opened(SEALED.opening, purpose=RECEIPTS)),
        "bad_signature",
    ),
    "reveal signed as a commit": (
        lambda: sealing.check_signed(_opened(SEALED.opening, purpose="tb/bid-commit/v1")),
        "bad_signature",
    ),
    "reveal by who learned the salt": (
        lambda: sealing.check_reveal(SEALED.bid_tx, _opened(SEALED.opening, MALLORY)),
        "bad_signature",
    ),
    "reveal with another salt": (
        lambda: sealing.check_reveal(
            SEALED.bid_tx, _opened(replace(SEALED.opening, salt=bytes(32)))
        ),
        "bad_commitment",
    ),
    "reveal of another job": (
        lambda: sealing.check_reveal(
            SEALED.bid_tx, _opened(replace(SEALED.opening, state=state("other")))
        ),
        "bad_commitment",
    ),
    "reveal of another bid of the same bidder": (
        lambda: sealing.check_reveal(SEALED.bid_tx, _opened(seal(height=7, sequence=4).opening)),
        "bad_commitment",
    ),
    "reveal of a bid whose commit is not signed": (
        lambda: sealing.check_reveal(replace(SEALED.bid_tx, signature=bytes(3309)), REVEAL),
        "bad_signature",
    ),
    "salt and state cut elsewhere": (
        lambda: sealing.check_reveal(
            SEALED.bid_tx,
            _opened(replace(SEALED.opening, salt=SALT + b"{", state=SEALED.opening.state[1:])),
        ),
        "bad_commitment",
    ),
}


@pytest.mark.parametrize("attack", TABLE)
def test_attack_is_refused(attack: str) -> None:
    call, expected = TABLE[attack]
    assert reason(call) == expected


def test_copied_commitment_is_another_bid_that_its_copier_cannot_open() -> None:
    """Whoever signs the commitment of another as his own takes no id away from it."""
    terms = replace(SEALED.bid_tx.terms, public_key=MALLORY.public_key)
    height, sequence = terms.height.to_bytes(8, "big"), terms.sequence.to_bytes(8, "big")
    commitment = SEALED.bid_tx.commitment
    envelope = framed(terms.market_id, MALLORY.key_id, height, sequence, commitment)
    copy = BidTx(terms, commitment, _signed(MALLORY, envelope, "tb/bid-commit/v1"))
    sealing.check_bid_tx(copy)
    assert copy.bid_id != SEALED.bid_tx.bid_id
    opened = _opened(replace(SEALED.opening, terms=terms), MALLORY)
    assert reason(lambda: sealing.check_reveal(copy, opened)) == "bad_commitment"


def test_commitment_is_what_the_documentation_says() -> None:
    """Written out again: who verifies with another program has nothing else to go by."""
    parts = (
        MARKET_ID,
        ALICE.key_id,
        (7).to_bytes(8, "big"),
        (3).to_bytes(8, "big"),
        SALT,
        SEALED.opening.state,
    )
    message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    context = "compute_market 2026-11 bid commitment v1"
    assert SEALED.bid_tx.commitment == blake3(message, derive_key_context=context).digest()


def test_commitment_depends_on_nothing_random_but_the_salt() -> None:
    again = seal(height=7, sequence=3)
    assert (again.bid_tx.commitment, again.bid_tx.bid_id) == (
        SEALED.bid_tx.commitment,
        SEALED.bid_tx.bid_id,
    )
    assert again.bid_tx.signature != SEALED.bid_tx.signature
    assert seal(height=7, sequence=3, salt=bytes(32)).bid_tx.commitment != again.bid_tx.commitment


@pytest.mark.parametrize(
    "changes",
    [
        {"salt": bytes(31)},
        {"salt": bytes(33)},
        {"market_id": bytes(15)},
        {"height": -1},
        {"sequence": 2**63},
        {"job_id": "j" * 2**20},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_seal_refuses_what_no_file_could_hold(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        seal(**changes)


def test_largest_bid_has_a_file_that_is_read() -> None:
    sealed = seal("j" * (2**20 - len(state(""))))
    assert len(sealed.opening.state) == sealing.STATE_BYTES_MAX
    text = bid_files.secret_text(sealed)
    assert len(text) <= bid_files.FILE_BYTES_MAX
    assert bid_files.parse_secret(text, "it") == sealed
    longer = replace(sealed.opening, state=sealed.opening.state + b" ")
    opened = bid_files.reveal_text(sealing.sign_reveal(longer, ALICE))
    with pytest.raises(MarketError) as caught:
        bid_files.parse_reveal(opened, "it")
    assert caught.value.reason == "malformed"
