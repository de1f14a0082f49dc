"""Keys and their files: the seed of a key of one's own, and the public keys of others.

Both files are canonical JSON and name the key by its id, so that one that was changed is never
taken for a key. Who may read them is the business of who opens them.
"""

from typing import Final

from msgspec import Struct

from compute_market.signatures import canonical, signatures
from compute_market.signatures.signatures import (
    ALGORITHM,
    KEY_ID_BYTES,
    PUBLIC_KEY_BYTES,
    SEED_BYTES,
)

VERSION: Final = 1


class SecretFile(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What the file of a key of one's own holds."""

    version: int  # of the format: 1
    algorithm: str  # `ML-DSA-65`
    seed: str  # the secret, 64 hex digits
    key_id: str  # what the key is known by, 64 hex digits


class PublicFile(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What the file of a public key holds, and what others import."""

    version: int  # of the format: 1
    algorithm: str  # `ML-DSA-65`
    public_key: str  # what verifies, 3904 hex digits
    key_id: str  # what the key is known by, 64 hex digits


class Key(Struct, frozen=True, gc=False):
    """A key; `seed` is None for one that belongs to somebody else."""

    public_key: bytes
    key_id: bytes
    seed: bytes | None = None


def key_of(seed: bytes) -> Key:
    """The key that a 32-byte seed stands for."""
    public = signatures.public_key(seed)
    return Key(public, signatures.key_id(public), seed)


def public_key_of(public_key: bytes) -> Key:
    """The key of somebody else."""
    return Key(public_key, signatures.key_id(public_key))


def secret_text(key: Key) -> bytes:
    """The content of the file of a key of one's own."""
    assert key.seed is not None, "it is the key of somebody else"
    return canonical.line(SecretFile(VERSION, ALGORITHM, key.seed.hex(), key.key_id.hex()))


def public_text(key: Key) -> bytes:
    """The content of the file of a public key."""
    return canonical.line(PublicFile(VERSION, ALGORITHM, key.public_key.hex(), key.key_id.hex()))


def parse_secret(text: bytes, what: str) -> Key:
    """The key in a secret file. Raises IntegrityError naming `what` for any change of it."""
    found = canonical.parsed(text, SecretFile, what)
    _check_kind(found, what)
    key = key_of(canonical.unhex(found.seed, SEED_BYTES, f"{what}: the seed"))
    return _checked(key, found.key_id, what)


def parse_public(text: bytes, what: str) -> Key:
    """The key in a public file. Raises IntegrityError naming `what` for any change of it."""
    found = canonical.parsed(text, PublicFile, what)
    _check_kind(found, what)
    public = canonical.unhex(found.public_key, PUBLIC_KEY_BYTES, f"{what}: the public key")
    return _checked(public_key_of(public), found.key_id, what)


def _check_kind(found: SecretFile | PublicFile, what: str) -> None:
    if (found.version, found.algorithm) != (VERSION, ALGORITHM):
        raise canonical.malformed(
            f"{what} is a key of {found.algorithm}, version {found.version}; "
            f"{ALGORITHM}, version {VERSION}, is known"
        )


def _checked(key: Key, key_id: str, what: str) -> Key:
    if key.key_id != canonical.unhex(key_id, KEY_ID_BYTES, f"{what}: the key id"):
        raise canonical.malformed(f"{what} was changed: its key has another id")
    return key
