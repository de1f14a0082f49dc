"""ML-DSA-65: what NIST publishes, what another implementation makes of it, and what is refused."""

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
from dilithium_py.ml_dsa import ML_DSA_65

from compute_market.errors import IntegrityError, UsageError
from compute_market.signatures import pyca, signatures
from compute_market.signatures.signatures import (
    BID_COMMIT,
    BID_REVEAL,
    KEY_ID_BYTES,
    PUBLIC_KEY_BYTES,
    RECEIPTS,
    SEED_BYTES,
    SIGNATURE_BYTES,
    Purpose,
)
from tests.support.effort import effort

ACVP: dict[str, Any] = json.loads(Path(__file__).with_name("acvp.json").read_text())
SEED = bytes(range(SEED_BYTES))
PUBLIC_KEY = signatures.public_key(SEED)
MESSAGE = b"what is signed"


def verifies(
    signature: bytes,
    *,
    public_key: bytes = PUBLIC_KEY,
    message: bytes = MESSAGE,
    purpose: Purpose = RECEIPTS,
) -> bool:
    try:
        signatures.verify(public_key, signature, message, purpose, "the message")
    except IntegrityError:
        return False
    return True


# NIST's vectors (ACVP).


@pytest.mark.parametrize("case", ACVP["keyGen"], ids=lambda case: case["tcId"])
def test_public_key_is_that_of_nist(case: dict[str, Any]) -> None:
    found = signatures.public_key(bytes.fromhex(case["seed"]))
    assert hashlib.sha256(found).hexdigest() == case["pk_sha256"]


def of_nist(case: dict[str, Any]) -> tuple[bytes, bytes, bytes, bytes]:
    """Public key, signature, message and context of a vector."""
    key, signature, message, context = (
        bytes.fromhex(case[name]) for name in ("pk", "signature", "message", "context")
    )
    return key, signature, message, context


@pytest.mark.parametrize("case", ACVP["sigVer"], ids=lambda case: case["tcId"])
def test_signature_is_judged_as_by_nist(case: dict[str, Any]) -> None:
    assert pyca.verify(*of_nist(case)) == case["testPassed"]


def test_vectors_hold_good_and_bad_signatures() -> None:
    assert len(ACVP["keyGen"]) == 25
    assert {case["testPassed"] for case in ACVP["sigVer"]} == {True, False}


# Another implementation, which follows the text of the standard.


def test_another_implementation_verifies_what_is_signed() -> None:
    public_key, _ = ML_DSA_65.key_derive(SEED)
    assert public_key == PUBLIC_KEY
    signature = signatures.sign(SEED, MESSAGE, BID_COMMIT)
    assert ML_DSA_65.verify(PUBLIC_KEY, MESSAGE, signature, ctx=b"tb/bid-commit/v1")
    assert not ML_DSA_65.verify(PUBLIC_KEY, MESSAGE, signature, ctx=b"tb/bid-reveal/v1")
    assert not ML_DSA_65.verify(PUBLIC_KEY, MESSAGE + b".", signature, ctx=b"tb/bid-commit/v1")


@pytest.mark.parametrize("deterministic", [True, False])
def test_what_another_implementation_signs_verifies(deterministic: bool) -> None:
    _, secret = ML_DSA_65.key_derive(SEED)
    context = b"tb/bid-reveal/v1"
    signature = ML_DSA_65.sign(secret, MESSAGE, ctx=context, deterministic=deterministic)
    assert verifies(signature, purpose=BID_REVEAL)
    assert not verifies(signature, purpose=BID_COMMIT)


# What is refused.


def test_sizes_are_those_of_the_standard() -> None:
    signature = signatures.sign(SEED, MESSAGE, RECEIPTS)
    assert (len(PUBLIC_KEY), len(signature)) == (PUBLIC_KEY_BYTES, SIGNATURE_BYTES) == (1952, 3309)
    assert len(signatures.key_id(PUBLIC_KEY)) == KEY_ID_BYTES == 32


def test_signature_holds_for_one_purpose_alone() -> None:
    for purpose in get_args(Purpose):
        signature = signatures.sign(SEED, MESSAGE, purpose)
        for other in get_args(Purpose):
            assert verifies(signature, purpose=other) == (other == purpose)


def test_purposes_are_contexts_of_their_own() -> None:
    purposes = get_args(Purpose)
    assert len(set(purposes)) == len(purposes)
    assert all(purpose.isascii() and len(purpose) <= 255 for purpose in purposes)
    assert {BID_COMMIT, BID_REVEAL, RECEIPTS} <= {*purposes}


def test_two_signatures_of_one_message_differ_and_both_verify() -> None:
    first, second = (signatures.sign(SEED, MESSAGE, RECEIPTS) for _ in range(2))
    assert first != second
    assert verifies(first)
    assert verifies(second)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("part", ["signature", "public_key", "message"])
def test_flipped_bit_is_refused(part: str) -> None:
    signature = signatures.sign(SEED, MESSAGE, RECEIPTS)
    parts = {"signature": signature, "public_key": PUBLIC_KEY, "message": MESSAGE}
    assert verifies(**parts)
    bits = range(8 * len(parts[part]))
    sample = effort(200, len(bits))
    for bit in Random(part).sample(bits, min(sample, len(bits))):
        assert not verifies(**(parts | {part: flipped(parts[part], bit)})), bit


def test_signature_of_another_key_is_refused() -> None:
    signature = signatures.sign(bytes(SEED_BYTES), MESSAGE, RECEIPTS)
    key_id = signatures.key_id(PUBLIC_KEY).hex()
    says = f"^the message: the signature is not that of key {key_id}$"
    with pytest.raises(IntegrityError, match=says) as caught:
        signatures.verify(PUBLIC_KEY, signature, MESSAGE, RECEIPTS, "the message")
    assert caught.value.reason == "bad_signature"


@pytest.mark.parametrize("length", [0, 1, SIGNATURE_BYTES - 1, SIGNATURE_BYTES + 1])
def test_signature_of_wrong_length_is_refused(length: int) -> None:
    signature = signatures.sign(SEED, MESSAGE, RECEIPTS)
    assert not verifies((signature + bytes(1))[:length] if length else b"")


@pytest.mark.parametrize("length", [0, 1, PUBLIC_KEY_BYTES - 1, PUBLIC_KEY_BYTES + 1])
def test_public_key_of_wrong_length_is_no_key(length: int) -> None:
    says = f"^a public key has 1952 bytes, not {length}$"
    with pytest.raises(UsageError, match=says):
        signatures.verify(bytes(length), bytes(SIGNATURE_BYTES), MESSAGE, RECEIPTS, "it")
    with pytest.raises(UsageError, match=says):
        signatures.key_id(bytes(length))


@pytest.mark.parametrize("length", [0, 31, 33, 4032])
def test_seed_of_wrong_length_is_no_key(length: int) -> None:
    says = f"^the seed of a key has 32 bytes, not {length}$"
    with pytest.raises(UsageError, match=says):
        signatures.public_key(bytes(length))
    with pytest.raises(UsageError, match=says):
        signatures.sign(bytes(length), MESSAGE, RECEIPTS)


# What is signed.


def test_framed_parts_are_those_parts_and_no_others() -> None:
    """The encoding without lengths for which two bids had one hash."""
    lists = [
        [],
        [b""],
        [b"", b""],
        [b"ab", b"c"],
        [b"a", b"bc"],
        [b"abc"],
        [b"abc", b""],
        [b"", b"abc"],
        [signatures.framed(b"abc")],
        [signatures.framed(b"ab", b"c")],
    ]
    framed = [signatures.framed(*parts) for parts in lists]
    assert len(set(framed)) == len(lists)
    assert signatures.framed(b"ab", b"") == b"\0\0\0\0\0\0\0\2ab" + bytes(8)


def test_key_id_stays_what_it_is() -> None:
    """Markets have stored it."""
    assert signatures.key_id(PUBLIC_KEY).hex() == (
        "cbf3cc754c4f14f3da827ad59ffa814a057a31ea581a9eac502bc496b37614b6"
    )
