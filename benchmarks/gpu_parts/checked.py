"""Some digests by every way, for a checker to watch."""

from contextlib import closing

from gpu_parts.bench import KIB, Bench
from gpu_parts.digests import compare, ways
from gpu_parts.record import Record


def run(bench: Bench, record: Record) -> None:
    with closing(bench.open(lanes=1)) as backend:
        compare(backend, (16 if bench.quick else 300) * KIB)
        ways(bench, backend)
    record.put("right", True)
