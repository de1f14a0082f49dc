"""Claim: signing takes at most twice, verifying at most 1.3 times what the backend itself takes.

Peer: the same call of the same backend on a key that it holds expanded; here a key is kept as its
seed or as its bytes, and expanded or read each time. With liboqs on the machine it is measured too.
"""

import os
import statistics
from collections.abc import Callable

import measure
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from compute_market.signatures import keys, liboqs, signatures
from compute_market.signatures.signatures import RECEIPTS

SIGN_BOUND = 2.0
VERIFY_BOUND = 1.3
# About what is signed of an export: ids, links, numbers.
MESSAGE = bytes(200)
CONTEXT = RECEIPTS.encode()
# Calls in a round. Signing draws until a signature fits, and so takes now one draw and now ten.
CALLS = 50

KEY = keys.key_of(bytes(range(32)))


def main() -> None:
    chosen = measure.arguments(__doc__).parse_args()
    rounds = 15 if chosen.quick else 100
    private = MLDSA65PrivateKey.from_seed_bytes(bytes(range(32)))
    public = private.public_key()
    signature = private.sign(MESSAGE, CONTEXT)
    seed = bytes(range(32))
    compare(
        "signing by cryptography",
        lambda: signatures.sign(seed, MESSAGE, RECEIPTS),
        lambda: private.sign(MESSAGE, CONTEXT),
        SIGN_BOUND,
        rounds,
    )
    compare(
        "verifying by cryptography",
        lambda: verify(signature),
        lambda: public.verify(signature, MESSAGE, CONTEXT),
        VERIFY_BOUND,
        rounds,
    )
    if liboqs.load(os.environ):
        with_liboqs(signature, rounds)
    else:
        print("no liboqs here: only cryptography was measured")
    measure.finish()


def with_liboqs(signature: bytes, rounds: int) -> None:
    import oqs

    with oqs.Signature("ML-DSA-65") as verifier:
        compare(
            "verifying by liboqs",
            lambda: verify(signature),
            lambda: verifier.verify_with_ctx_str(MESSAGE, signature, CONTEXT, KEY.public_key),
            VERIFY_BOUND,
            rounds,
        )


def verify(signature: bytes) -> None:
    signatures.verify(KEY.public_key, signature, MESSAGE, RECEIPTS, "it")


def compare(
    what: str, own: Callable[[], object], raw: Callable[[], object], bound: float, rounds: int
) -> None:
    times = measure.interleave({"own": repeated(own), "raw": repeated(raw)}, rounds)
    own_us, raw_us = (1e6 * statistics.median(times[name]) / CALLS for name in ("own", "raw"))
    print(f"{what}: {own_us:.0f} µs, of the backend {raw_us:.0f} µs")
    measure.claim(what, measure.ratio(times["own"], times["raw"]), bound, "× the backend's call")


def repeated(action: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(CALLS):
            action()

    return run


if __name__ == "__main__":
    main()
