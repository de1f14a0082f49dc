"""Key files: what they hold, and that any change of one is noticed."""

import json
from collections.abc import Callable
from random import Random

import pytest

from compute_market.errors import IntegrityError
from compute_market.signatures import keys
from compute_market.signatures.keys import Key
from tests.support.effort import effort

KEY = keys.key_of(bytes(range(32)))
PUBLIC = keys.public_key_of(KEY.public_key)
SECRET_FILE = keys.secret_text(KEY)
PUBLIC_FILE = keys.public_text(KEY)
FILES: dict[str, tuple[bytes, Callable[[bytes, str], Key], Key]] = {
    "secret": (SECRET_FILE, keys.parse_secret, KEY),
    "public": (PUBLIC_FILE, keys.parse_public, PUBLIC),
}
EACH = pytest.mark.parametrize("kind", FILES)


def refused(kind: str, text: bytes) -> str:
    """How a changed file is refused."""
    with pytest.raises(IntegrityError) as caught:
        FILES[kind][1](text, "the file")
    assert caught.value.reason == "malformed"
    assert caught.value.message.startswith("the file")
    return caught.value.message


@EACH
def test_file_holds_the_key(kind: str) -> None:
    text, parse, key = FILES[kind]
    assert parse(text, "the file") == key


def test_public_file_of_an_own_key_is_that_of_the_public_key() -> None:
    assert keys.public_text(PUBLIC) == PUBLIC_FILE
    assert b"seed" not in PUBLIC_FILE


def test_secret_file_holds_the_seed_and_not_the_expanded_key() -> None:
    assert json.loads(SECRET_FILE) == {
        "version": 1,
        "algorithm": "ML-DSA-65",
        "seed": bytes(range(32)).hex(),
        "key_id": KEY.key_id.hex(),
    }


@EACH
def test_every_flipped_bit_is_noticed(kind: str) -> None:
    text, _, _ = FILES[kind]
    for bit in range(8 * len(text)):
        changed = bytearray(text)
        changed[bit // 8] ^= 1 << bit % 8
        refused(kind, bytes(changed))


@EACH
def test_every_cut_is_noticed(kind: str) -> None:
    text, _, _ = FILES[kind]
    for length in Random(kind).sample(range(len(text)), effort(100, len(text))):
        refused(kind, text[:length])


def of_another(text: bytes) -> bytes:
    """The same with the id of another key."""
    other = keys.key_of(bytes(32)).key_id.hex().encode()
    return text.replace(KEY.key_id.hex().encode(), other)


@EACH
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + b"\n",
        lambda text: text + text,
        lambda text: b" " + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b",", b", "),
        lambda text: text.replace(KEY.key_id.hex().encode(), KEY.key_id.hex().upper().encode()),
        lambda text: text.replace(b'{"version":1', b'{"version":1,"version":1'),
        lambda text: text.replace(b"}", b',"more":1}'),
        lambda text: text.replace(b'"version":1,', b""),
        lambda text: text.replace(b'"version":1', b'"version":1.0'),
        lambda text: text.replace(b'"version":1', b'"version":true'),
        lambda text: text.replace(b'"version":1', b'"version":2'),
        lambda text: text.replace(b"ML-DSA-65", b"ML-DSA-87"),
        lambda text: text.replace(b"ML-DSA-65", b"ML-DSA-65\\u0000"),
        lambda text: json.dumps(json.loads(text)).encode() + b"\n",
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: b"[]\n",
        lambda text: b"null\n",
        of_another,
    ],
)
def test_other_form_of_the_same_is_refused(kind: str, change: Callable[[bytes], bytes]) -> None:
    text, _, _ = FILES[kind]
    refused(kind, change(text))


def test_one_kind_of_file_is_not_taken_for_the_other() -> None:
    refused("public", SECRET_FILE)
    refused("secret", PUBLIC_FILE)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_seed_of_wrong_length_is_told(length: int) -> None:
    text = SECRET_FILE.replace(bytes(range(32)).hex().encode(), bytes(length).hex().encode())
    assert refused("secret", text) == "the file: the seed is not 64 lower-case hex digits"
