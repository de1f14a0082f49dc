"""`demo`: the whole market on the example workloads, in a home that is thrown away."""

import os
import shlex
import sys
import tempfile
from functools import partial

import typer

from compute_market.errors import InternalError, UsageError
from tb_cli.frame.guard import answered

# A line of the story: what it shows, the command, the exit code it must end with.
STORY = (
    ("Two buyers and three providers get some money to play with.", "", 0),
    ("", "wallet deposit alice --ct 1000 --it 1000 --key demo-1", 0),
    ("", "wallet deposit bob --ct 50", 0),
    ("", "wallet deposit cpu-farm --ct 100", 0),
    ("", "wallet deposit gpu-lab --ct 100", 0),
    ("", "wallet deposit tpu-barn --ct 100", 0),
    ("The same deposit again, as after a time-out, does nothing.", "", 0),
    ("", "wallet deposit alice --ct 1000 --it 1000 --key demo-1", 0),
    ("Money moves only once settlement is real: arm it, let two blocks pass.", "", 0),
    ("", "compute-market settle arm --delay-blocks 2", 0),
    ("", "chain advance 2", 0),
    ("Providers post offers.", "", 0),
    (
        "",
        "compute offer post --offer-id cpu --provider cpu-farm --units 100 --price 4 "
        "--fee-pct-ct 25 --bond 10 --cpu-cores 16",
        0,
    ),
    (
        "",
        "compute offer post --offer-id gpu --provider gpu-lab --units 100 --price 20 "
        "--fee-pct-ct 50 --bond 20 --cpu-cores 32 --gpu RTX4090 --gpu-count 2 "
        "--gpu-memory-mb 49152 --multiplier 0.9",
        0,
    ),
    (
        "",
        "compute offer post --offer-id a100 --provider gpu-lab --units 100 --price 60 "
        "--fee-pct-ct 50 --bond 40 --cpu-cores 64 --gpu A100 --gpu-count 8 "
        "--gpu-memory-mb 655360",
        0,
    ),
    (
        "",
        "compute offer post --offer-id tpu --provider tpu-barn --units 100 --price 30 "
        "--bond 20 --cpu-cores 16 --accelerator TPU --accelerator-memory-mb 32768",
        0,
    ),
    ("Buyers submit the example jobs; each goes to the cheapest offer that fits.", "", 0),
    ("", "compute submit cpu_only.json --buyer alice --slice transcode.slice --max-price 10", 0),
    (
        "",
        "compute submit gpu_inference.json --buyer alice --slice inference.slice --max-price 25",
        0,
    ),
    (
        "",
        "compute submit multi_gpu.json --buyer alice --slice inference.slice "
        "--slice transcode.slice --max-price 60 --priority high",
        0,
    ),
    (
        "",
        "compute submit tpu_inference.json --buyer bob --slice inference.slice --max-price 30",
        0,
    ),
    ("A job that asks for more than there is gets no, and why.", "", 0),
    (
        "",
        "compute submit --job-id too-big --buyer bob --workload inference "
        "--slice inference.slice --gpu RTX4090 --gpu-memory-mb 65536 --max-price 99",
        5,
    ),
    ("", "compute explain gpu_inference.json", 0),
    ("", "compute list", 0),
    ("The slices are run and proven; the last proof pays the provider.", "", 0),
    ("", "compute execute cpu-only gpu-inference multi-gpu", 0),
    ("Bob changes his mind. Cancelling twice is harmless.", "", 0),
    ("", "compute cancel tpu-inference", 0),
    ("", "compute cancel tpu-inference", 0),
    ("", "compute cancel cpu-only", 4),
    ("Who has what now.", "", 0),
    ("", "compute-market receipts list", 0),
    ("", "wallet balance alice", 0),
    ("", "wallet balance bob", 0),
    ("", "wallet history gpu-lab", 0),
    ("", "compute stats", 0),
    ("Every law of the market is checked.", "", 0),
    ("", "compute-market audit", 0),
)


def demo(ctx: typer.Context) -> None:
    """Show the whole market on the example workloads, in a home that is thrown away.

    Each line that begins with $ is a command as you would type it.
    """
    from tb_cli.app import call

    workloads = _workloads()
    # The commands below name the example files as an operator in that directory would.
    os.chdir(workloads)
    with tempfile.TemporaryDirectory(prefix="tb-demo-") as home:
        os.environ["TB_HOME"] = os.path.join(home, "home")
        for words, command, expected in STORY:
            if words:
                print(f"\n# {words}", flush=True)
                continue
            print(f"$ tb-cli {command}", flush=True)
            arguments = shlex.split(command)
            code = answered(partial(call, arguments), arguments)
            sys.stdout.flush()
            if code != expected:
                raise InternalError(f"`tb-cli {command}` ended with {code}, not {expected}")


def _workloads() -> str:
    """The directory of the example workloads: in the wheel, or in the source tree."""
    here = os.path.dirname(os.path.abspath(__file__))
    candidates = (
        os.path.join(here, "workloads"),
        os.path.join(os.path.dirname(os.path.dirname(here)), "examples", "workloads"),
    )
    for path in candidates:
        if os.path.exists(os.path.join(path, "cpu_only.json")):
            return path
    raise UsageError("the example workloads are not installed", hint="run it in the source tree")
