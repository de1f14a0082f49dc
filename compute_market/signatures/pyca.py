"""ML-DSA-65 by `cryptography`, which expands a key from its 32-byte seed."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey


def public_key(seed: bytes) -> bytes:
    return MLDSA65PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, message: bytes, context: bytes) -> bytes:
    return MLDSA65PrivateKey.from_seed_bytes(seed).sign(message, context)


def verify(public_key: bytes, signature: bytes, message: bytes, context: bytes) -> bool:
    try:
        MLDSA65PublicKey.from_public_bytes(public_key).verify(signature, message, context)
    except InvalidSignature:
        return False
    return True
