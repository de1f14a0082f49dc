"""Signing and verifying with ML-DSA-65 (FIPS 204), each purpose under a context of its own.

Signatures are randomised: two of one message differ, so their bytes are never compared or hashed.
There are two backends, which understand each other: `cryptography` signs, since a key is kept as
its seed, and verifies unless the process has loaded liboqs (`liboqs.load`) and that can say. A
backend is imported by what signs or verifies, and by nothing else.
"""

from typing import Final, Literal

from compute_market.errors import IntegrityError, UsageError

ALGORITHM: Final = "ML-DSA-65"
SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 1952
SIGNATURE_BYTES: Final = 3309
KEY_ID_BYTES: Final = 32

# The context strings of FIPS 204: a signature for one purpose is none for another.
Purpose = Literal[
    "tb/bid-commit/v1",
    "tb/bid-reveal/v1",
    "tb/receipts/v1",
    "tb/bundles/v1",
    "tb/acknowledgement/v1",
    "tb/gossip/v1",
]
BID_COMMIT: Final = "tb/bid-commit/v1"
BID_REVEAL: Final = "tb/bid-reveal/v1"
RECEIPTS: Final = "tb/receipts/v1"
BUNDLES: Final = "tb/bundles/v1"
ACKNOWLEDGEMENT: Final = "tb/acknowledgement/v1"
GOSSIP: Final = "tb/gossip/v1"

Backend = Literal["cryptography", "liboqs"]
SIGNING_BACKEND: Final[Backend] = "cryptography"

_KEY_ID_CONTEXT: Final = "compute_market 2026-11 public key id v1"


def public_key(seed: bytes) -> bytes:
    """The public key of a 32-byte seed (`ML-DSA.KeyGen_internal`, FIPS 204 algorithm 6)."""
    from compute_market.signatures import pyca

    _check_length("the seed of a key", seed, SEED_BYTES)
    return pyca.public_key(seed)


def key_id(public_key: bytes) -> bytes:
    """What a public key is named by, 32 bytes: a BLAKE3 hash of it."""
    from blake3 import blake3

    _check_length("a public key", public_key, PUBLIC_KEY_BYTES)
    return blake3(public_key, derive_key_context=_KEY_ID_CONTEXT).digest()


def sign(seed: bytes, message: bytes, purpose: Purpose) -> bytes:
    """A signature, 3309 bytes, by the key that a seed stands for."""
    from compute_market.signatures import pyca

    _check_length("the seed of a key", seed, SEED_BYTES)
    return pyca.sign(seed, message, purpose.encode())


def verify(
    public_key: bytes, signature: bytes, message: bytes, purpose: Purpose, what: str
) -> None:
    """Make sure that a signature is that of a key over a message, for a purpose.

    Raises IntegrityError (`bad_signature`) that names `what` was signed.
    """
    _check_length("a public key", public_key, PUBLIC_KEY_BYTES)
    if len(signature) != SIGNATURE_BYTES or not _is_good(
        public_key, signature, message, purpose.encode()
    ):
        raise IntegrityError(
            f"{what}: the signature is not that of key {key_id(public_key).hex()}",
            hint="it was changed, or signed by another key or for another purpose",
            reason="bad_signature",
        )


def verifying_backend() -> Backend:
    """What verifies in this process."""
    from compute_market.signatures import liboqs

    return "cryptography" if liboqs.loaded() is None else "liboqs"


def _is_good(public_key: bytes, signature: bytes, message: bytes, context: bytes) -> bool:
    from compute_market.signatures import liboqs

    found = liboqs.verify(public_key, signature, message, context)
    if found is not None:
        return found
    from compute_market.signatures import pyca

    return pyca.verify(public_key, signature, message, context)


def framed(*parts: bytes) -> bytes:
    """The parts one after the other, each behind its length in eight bytes big-endian.

    No two different lists of parts give the same bytes.
    """
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _check_length(what: str, given: bytes, wanted: int) -> None:
    if len(given) != wanted:
        raise UsageError(f"{what} has {wanted} bytes, not {len(given)}")
