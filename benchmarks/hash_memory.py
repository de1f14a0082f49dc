"""Claim: what the CPU path adds to the `blake3` package is lost in the noise, and threads pay.

Peers, in the same rounds on the same bytes: the better of the two raw calls of the package, one
thread or its own; and for 64 slices of 16 MiB, one thread that hashes them one after another.
The slices are ranges of one buffer, and files. Threads need cores that nobody else uses.
"""

import mmap
import os
import statistics

import measure
from blake3 import blake3

from compute_market.hashing.batch import hash_batch
from compute_market.hashing.cpu import cores, hash_bytes
from compute_market.workloads.runner import Runner

MIB = 2**20
LENGTHS_MIB = (1, 16, 256)
SLICES, SLICE_MIB = 64, 16
# At least 0.97 × the speed of the raw call; at least 1.8 × the speed of one thread on two cores.
RAW_BOUND = 1 / 0.97
THREADS_BOUND = 1 / 1.8


def main() -> None:
    quick = measure.arguments(__doc__).parse_args().quick
    print(f"{cores()} cores; medians in GB/s")
    for length_mib in LENGTHS_MIB:
        compare_one(length_mib, (5 if quick else 11) * max(1, 16 // length_mib))
    compare_slices(SLICES // 4 if quick else SLICES, 5 if quick else 11)
    measure.finish()


def compare_one(length_mib: int, rounds: int) -> None:
    data = os.urandom(length_mib * MIB)
    repeats = max(1, 64 // length_mib)

    def repeated(digest: measure.Action) -> measure.Action:
        def act() -> None:
            for _ in range(repeats):
                digest()

        return act

    times = measure.interleave(
        {
            "hash_bytes": repeated(lambda: hash_bytes(data)),
            "hash_batch": repeated(lambda: hash_batch(data, [0], [len(data)])),
            "raw, one thread": repeated(lambda: blake3(data).digest()),
            "raw, max_threads=AUTO": repeated(
                lambda: blake3(data, max_threads=blake3.AUTO).digest()
            ),
        },
        rounds,
    )
    show(times, repeats * len(data))
    raw = min((name for name in times if name.startswith("raw")), key=lambda n: median(times[n]))
    text = f"hash_bytes of {length_mib} MiB"
    level = measure.ratio(times["hash_bytes"], times[raw])
    measure.claim(text, level, RAW_BOUND, f"× the time of {raw}")


def compare_slices(count: int, rounds: int) -> None:
    length = SLICE_MIB * MIB
    with measure.scratch(on_disk=False, gib=2) as directory:
        path = directory / "slices"
        with open(path, "wb") as whole:
            for number in range(count):
                block = os.urandom(length)
                whole.write(block)
                (directory / str(number)).write_bytes(block)
        files = [str(directory / str(number)) for number in range(count)]
        offsets = range(0, count * length, length)
        lengths = [length] * count

        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer,
        ):
            digests = hash_batch(buffer, offsets, lengths, threads=1)
            assert hash_batch(buffer, offsets, lengths) == digests
            assert prove(files, None) == digests
            times = measure.interleave(
                {
                    "hash_batch, one thread": lambda: hash_batch(buffer, offsets, lengths, 1),
                    "hash_batch": lambda: hash_batch(buffer, offsets, lengths),
                    "files, one thread": lambda: read_and_hash(files),
                    "files, runner": lambda: prove(files, None),
                },
                rounds,
            )
    show(times, count * length)
    for text, name, floor in (
        (f"{count} ranges of {SLICE_MIB} MiB", "hash_batch", "hash_batch, one thread"),
        (f"{count} files of {SLICE_MIB} MiB", "files, runner", "files, one thread"),
    ):
        if cores() < 2:
            print(f"skip {text}: one core")
            continue
        measured = measure.ratio(times[name], times[floor])
        print(f"     {text}: {1 / measured:.2f} × the speed of one thread")
        measure.claim(text, measured, THREADS_BOUND, f"× the time of {floor}")


def prove(paths: list[str], workers: int | None) -> bytes:
    with Runner(workers) as runner:
        results = runner.run("transcode", paths, now_ms=measure.now_ms() + 10_000)
        return b"".join([result.digest for result in results])


def read_and_hash(paths: list[str]) -> bytes:
    """What one thread does: a block of each file after another, in one buffer."""
    digests = []
    buffer = memoryview(bytearray(MIB))
    for path in paths:
        hasher = blake3()
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(buffer[:count])
        digests.append(hasher.digest())
    return b"".join(digests)


def show(times: dict[str, list[float]], length: int) -> None:
    for name, taken in times.items():
        print(f"{name:24} {length / median(taken) / 1e9:6.2f}")


def median(taken: list[float]) -> float:
    return statistics.median(taken)


if __name__ == "__main__":
    main()
