"""A process of its own, from its start to the digest of a short file; kernels are cached."""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rounds import interleave

from gpu_parts.bench import Bench
from gpu_parts.record import Record

ROOT = Path(__file__).resolve().parents[2]
# What the time is made of, one behind the other.
STEPS = """
import time
began = time.perf_counter()
def step(name):
    global began
    now = time.perf_counter()
    print(name, now - began, flush=True)
    began = now
import numpy
step("numpy")
import cupy
step("cupy")
cupy.cuda.runtime.deviceSynchronize()
step("context")
from compute_market.hashing import cuda
backend = cuda.open_backend(lanes=1)
step("first lane")
backend.hash_batch(b"x", [0], [1])
step("first digest")
"""


def run(bench: Bench, record: Record) -> None:
    bench.require()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "short"
        path.write_bytes(b"x")
        # Packages may be where only PYTHONPATH leads.
        places = [str(ROOT), str(ROOT / "cli"), os.environ.get("PYTHONPATH", "")]
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, places)),
            "TB_HOME": str(Path(directory) / "home"),
        }

        def told(*words: str) -> str:
            done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"a process ended with {done.returncode}: {done.stderr}")
            return done.stdout

        if bench.is_cuda:
            steps = dict(line.rsplit(" ", 1) for line in told("-c", STEPS).splitlines())
            record.put("steps", {name: float(taken) for name, taken in steps.items()})
        words = ("-m", "tb_cli.entry", "compute", "run", str(path), "--backend", bench.backend)
        times = interleave({"run": lambda: told(*words)}, min(3, bench.rounds))
    taken = statistics.median(times["run"])
    record.put("seconds", times["run"])
    record.claim("a process that computes one digest", taken, at_most=1.5, unit="s")
