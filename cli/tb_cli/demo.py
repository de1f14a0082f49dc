"""`demo`: the whole market on the example workloads, in a home that is thrown away."""

import os
import shlex
import sys
import tempfile
from functools import partial

from compute_market.errors import InternalError
from compute_market.home import BIDS
from tb_cli.frame import installed
from tb_cli.frame.guard import answered, stop_if_lost
from tb_cli.frame.home import VARIABLE
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples

# What is shown and the commands that show it; one that must fail has its exit code before it.
STORY = """\
# Here is where the market will be; it is thrown away at the end.
state init
# Two buyers and three providers get some money to play with.
wallet deposit alice --ct 1000 --it 1000 --key demo-1
wallet deposit bob --ct 50
wallet deposit cpu-farm --ct 100
wallet deposit gpu-lab --ct 100
wallet deposit tpu-barn --ct 100
# The same deposit again, as after a time-out, does nothing.
wallet deposit alice --ct 1000 --it 1000 --key demo-1
# Money moves only once settlement is real: arm it, let two blocks pass.
compute-market settle arm --delay-blocks 2
chain advance 2
# Providers post offers.
compute offer post --offer-id cpu --provider cpu-farm --units 100 --price 4 \
--fee-pct-ct 25 --bond 10 --cpu-cores 16
compute offer post --offer-id gpu --provider gpu-lab --units 100 --price 20 \
--fee-pct-ct 50 --bond 20 --cpu-cores 32 --gpu RTX4090 --gpu-count 2 \
--gpu-memory-mb 49152 --multiplier 0.9
compute offer post --offer-id a100 --provider gpu-lab --units 100 --price 60 \
--fee-pct-ct 50 --bond 40 --cpu-cores 64 --gpu A100 --gpu-count 8 \
--gpu-memory-mb 655360
compute offer post --offer-id tpu --provider tpu-barn --units 100 --price 30 \
--bond 20 --cpu-cores 16 --accelerator TPU --accelerator-memory-mb 32768
# Buyers submit the example jobs; each goes to the cheapest offer that fits.
compute submit cpu_only.json --buyer alice --slice transcode.slice --max-price 10
compute submit gpu_inference.json --buyer alice --slice inference.slice --max-price 25
compute submit multi_gpu.json --buyer alice --slice inference.slice \
--slice transcode.slice --max-price 60 --priority high
compute submit tpu_inference.json --buyer bob --slice inference.slice --max-price 30 \
--lane consumer
# A job that asks for more than there is gets no, and why.
5 compute submit --job-id too-big --buyer bob --workload inference \
--slice inference.slice --gpu RTX4090 --gpu-memory-mb 65536 --max-price 99
compute explain gpu_inference.json
compute list
# A bid hides its job until it is revealed: two blocks later, and nobody else can.
key new alice
bid commit sealed_bid.json --bidder alice
bid list
chain advance 2
bid reveal $BID
# The slices are run and proven; the last proof pays the provider.
compute execute cpu-only gpu-inference multi-gpu
# Bob changes his mind. Cancelling twice is harmless.
compute cancel tpu-inference
compute cancel tpu-inference
4 compute cancel cpu-only
# Who has what now.
compute-market receipts list
wallet balance alice
wallet balance bob
wallet history gpu-lab
compute stats
# What the matches cost, by lane.
compute-market prices
# And what would an hour be like in which a buyer brings everything at once? Nothing of it is real.
compute-market simulate burst_after_idleness
# Every law of the market is checked.
compute-market audit
"""
# Stands for the id of the bid, which is another each time.
_BID = "$BID"


@examples("tb-cli demo")
def demo(session: Session) -> None:
    """Its home is thrown away at the end.

    Each line that begins with $ is a command as you would type it.
    """
    # A line is a command line: what runs those stands above every verb.
    from tb_cli.entry import call

    workloads = installed.directory("workloads", "examples/workloads", "cpu_only.json")
    # The commands below name the example files as an operator in that directory would.
    os.chdir(workloads)
    with tempfile.TemporaryDirectory(prefix="tb-demo-") as directory:
        home = os.environ[VARIABLE] = os.path.join(directory, "home")
        for line in STORY.splitlines():
            stop_if_lost()
            if line.startswith("#"):
                print(f"\n{line}", flush=True)
                continue
            code, command = line.split(" ", 1) if line[0].isdigit() else ("0", line)
            if _BID in command:
                command = command.replace(_BID, _sealed_in(home))
            print(f"$ tb-cli {command}", flush=True)
            arguments = shlex.split(command)
            found = answered(partial(call, arguments), arguments)
            sys.stdout.flush()
            stop_if_lost()  # A command whose words are lost may end with another code.
            if found != int(code):
                raise InternalError(f"`tb-cli {command}` ended with {found}, not {code}")


def _sealed_in(home: str) -> str:
    """The id of the one bid that was sealed in a home."""
    (name,) = os.listdir(os.path.join(home, BIDS))
    return name.partition(".")[0]
