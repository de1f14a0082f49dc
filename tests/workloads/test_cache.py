"""The cache of proofs: bounded, and keeping what was asked for lately."""

from compute_market.hashing.files import FileIdentity
from compute_market.workloads.cache import ProofCache


def identity(number: int) -> FileIdentity:
    return (0, number, 0, 0, 0)


def test_get_gives_the_proof_that_was_put() -> None:
    cache = ProofCache()
    cache.put(identity(1), b"proof")
    assert (cache.get(identity(1)), cache.get(identity(2))) == (b"proof", None)


def test_cache_keeps_no_more_than_the_latest_proofs() -> None:
    cache = ProofCache()
    for number in range(30_000):
        cache.put(identity(number), b"proof")
    assert all(cache.get(identity(number)) is None for number in range(30_000 - 16_384))
    assert all(cache.get(identity(number)) for number in range(30_000 - 8192, 30_000))


def test_cache_keeps_what_is_asked_for() -> None:
    cache = ProofCache()
    for number in range(30_000):
        cache.put(identity(number), b"proof")
        assert cache.get(identity(0)) == b"proof"
