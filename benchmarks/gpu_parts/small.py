"""Many slices of 1000 bytes in one buffer, end to end."""

from contextlib import closing

from blake3 import blake3
from rounds import interleave, ratio

from gpu_parts.bench import Bench, random_bytes
from gpu_parts.record import Record


def run(bench: Bench, record: Record) -> None:
    import numpy as np

    from compute_market.hashing.batch import hash_batch

    bench.require()
    count = 2_000 if bench.quick else 100_000
    data = random_bytes(1000 * count)
    offsets, lengths = np.arange(count) * 1000, np.full(count, 1000)
    view = memoryview(data)

    def one_thread() -> None:
        for start in range(0, len(data), 1000):
            blake3(view[start : start + 1000]).digest()

    with closing(bench.open()) as backend:
        record.put("device", " + ".join(backend.devices))
        if backend.hash_batch(data, offsets, lengths) != hash_batch(data, offsets, lengths):
            raise AssertionError("WRONG DIGEST of a slice of 1000 bytes")
        times = interleave(
            {
                "device": lambda: backend.hash_batch(data, offsets, lengths),
                "one thread": one_thread,
                "cpu": lambda: hash_batch(data, offsets, lengths),
            },
            bench.rounds,
        )
    record.put("seconds", times)
    faster = ratio(times["one thread"], times["device"])
    record.claim(f"{count} slices of 1000 bytes, by one CPU thread", faster, at_least=20)
