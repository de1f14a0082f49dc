"""Every way to change a market by one command, for tests that do not let it come to its end."""

import json
from typing import NamedTuple

from compute_market import home
from tb_cli.frame.verbs import Verb
from tests.support.cli import HELLO
from tests.support.processes import DEADLINE
from tests.support.verbs import FRIEND, RECEIPTS, SCORES, TRUST, VERBS

# Epochs are long, so that the height at which a proposal comes into force is always the same.
CONFIG = 'settle_mode = "real"\ndeadline_max_secs = 253402300799\nepoch_blocks = 1000000000\n'
CONFIG += "[scheduler]\nslots = 3\n"
CONFIG += f'[net]\ntrusted = ["{TRUST[1]}"]\n'
# What a market has before the change: jobs that run, wait in the queue, and wait for an offer.
BEFORE = f"""
wallet deposit alice --ct 1000 --it 1000 --key in-a
wallet deposit prov --ct 1000 --key in-p
compute offer post --offer-id o-1 --provider prov --units 100 --price 3 --bond 5 --fee-pct-ct 40
compute offer post --offer-id o-2 --provider prov --units 100 --price 4
compute submit jobs.jsonl
compute submit pending.json --wait
compute prove j1 0 {HELLO}
compute cancel j0
tick
state backup saved
key new node
"""
SLICE = "a.slice"


def _job(job_id: str, **more: object) -> str:
    job = {"job_id": job_id, "buyer": "alice", "workload": "transcode", "max_price_per_unit": 9}
    return json.dumps(job | {"slices": [SLICE, "b.slice"], "deadline": DEADLINE} | more) + "\n"


FILES = {
    SLICE: "hello",
    "b.slice": "hello",
    "jobs.jsonl": "".join(map(_job, ("j0", "j1", "j2", "j3", "j4", "j5"))),
    "pending.json": _job("pending", capability={"gpu": "none has it"}),
    "one.json": _job("new"),
}


BUNDLE = "BUNDLE"  # stands for the id of the bundle that was sent first
TOKEN = f"home/{home.SERVE_TOKEN}"


class Change(NamedTuple):
    """A command that changes something, on a home with a market or without one."""

    verb: str
    arguments: tuple[str, ...] = ()
    items: tuple[str, ...] = ()  # each a commit of its own, at the end of the command line
    lines: tuple[str, ...] = ()  # each a commit of its own, on standard input
    first: tuple[str, ...] = ()  # lines of a batch that come before
    is_fresh: bool = False  # there is no home
    again: bool = True  # it may be repeated when it is done, and then does nothing
    result: str | None = None  # the file or directory that it writes beside the market
    selects: bool = False  # what it changes is selected, and not named

    @property
    def name(self) -> str:
        if self.selects:
            return f"{self.verb} {self.arguments[0]}"
        makes_one = self.verb in ("state init", "state restore")
        return self.verb if makes_one or not self.is_fresh else f"{self.verb} in a new home"

    def command(self, steps: int | None = None) -> tuple[list[str], str]:
        """Its words and its standard input, of no more than so many commits."""
        words = [*self.verb.split(), *self.arguments, *self.items[:steps]]
        return words, "".join(f"{line}\n" for line in self.lines[:steps])

    @property
    def steps(self) -> int:
        return max(1, len(self.items), len(self.lines))


_DEPOSIT = ("bob", "--ct", "7", "--key", "k")
_TX = ("--lane", "consumer", "--sender", "s", "--fee", "7", "--bytes", "9", "--key", "k")
_OFFER = ("--offer-id", "new", "--provider", "p", "--units", "5", "--price", "9")
_IMPORT = "compute-market receipts import"
_PROPOSE = "compute-market params propose fair_share_cap 0.1"
_IN_FORCE = (_PROPOSE, "compute-market params approve 1", "chain advance 2000000000")
_TO_DRY_RUN = "compute-market settle dry-run --reason before"

CHANGES = (
    Change("compute offer post", _OFFER),
    Change("compute offer post", _OFFER, is_fresh=True),
    Change("compute offer set", ("--units", "+50", "--price", "5", "--key", "k"), items=("o-2",)),
    Change("compute offer withdraw", items=("o-2",)),
    Change("compute submit", items=("one.json",)),
    Change("compute execute", items=("j1",)),
    Change("compute prove", ("j2", "0", HELLO)),
    Change("compute cancel", ("--chunk", "1", "--failed-to", "left"), items=("j3", "j4", "j5")),
    Change("compute cancel", ("--buyer", "alice"), selects=True),
    Change("compute hold", ("--state", "queued,pending"), selects=True),
    Change("compute release", ("--all",), first=("compute hold j4 j5",), selects=True),
    Change("compute offer withdraw", ("--provider", "prov"), selects=True),
    Change("compute hold", ("--chunk", "1"), items=("j4", "j5", "pending")),
    Change("compute release", ("--chunk", "1"), items=("j4", "j5"), first=("compute hold j4 j5",)),
    Change("compute set", ("--priority", "high", "--chunk", "1"), items=("j1", "j4", "pending")),
    Change("compute courier send", ("b.slice", "alice", "--key", "k")),
    Change("compute courier send", ("b.slice", "alice", "--key", "k"), is_fresh=True),
    Change(
        "compute courier resend",
        items=(BUNDLE,),
        first=("compute courier send b.slice alice",),
        again=False,
    ),
    Change("compute-market match"),
    Change("compute-market settle arm", ("--delay-blocks", "5"), first=(_TO_DRY_RUN,), again=False),
    Change(
        "compute-market settle cancel-arm",
        first=(_TO_DRY_RUN, "compute-market settle arm --delay-blocks 500"),
        again=False,
    ),
    Change("compute-market settle dry-run", ("--reason", "r")),
    Change("compute-market settle tick"),
    Change("compute-market params propose", ("fair_share_cap", "0.1", "--key", "k")),
    Change("compute-market params approve", ("1",), first=(_PROPOSE,)),
    Change("compute-market params rollback", ("--key", "k"), first=_IN_FORCE),
    Change("compute-market capacity record", ("5",), again=False),
    Change("compute-market sla sweep"),
    Change("compute-market sla extend", ("--by", "60"), again=False),
    Change("compute-market clock", ("accept",)),
    Change(_IMPORT, (RECEIPTS,), first=("wallet deposit buyer --ct 100",)),
    Change("net reputation adjust", ("prov", "+3", "--reason", "r", "--key", "k")),
    Change("net reputation import", (SCORES,)),
    Change("net reputation export", ("out.scores",), result="out.scores"),
    Change("wallet deposit", _DEPOSIT),
    Change("wallet deposit", _DEPOSIT, is_fresh=True),
    Change("wallet withdraw", ("alice", "--ct", "7", "--key", "k")),
    Change("mempool submit", _TX),
    Change("mempool submit", _TX, is_fresh=True),
    Change("chain advance", ("3",), again=False),
    Change("key new", ("k1",), again=False),
    Change("key new", ("k1",), is_fresh=True, again=False),
    Change("key import-public", ("friend", FRIEND)),
    Change("net reputation sync", first=("net reputation adjust prov +3 --reason r",)),
    # An epoch ends, and pays for what was proven in it.
    Change("tick", first=("chain advance 60",)),
    Change(
        "batch",
        ("-", "--fail-fast"),
        lines=(
            "compute cancel j3",
            "wallet deposit bob --ct 7 --key k",
            "compute cancel j4 --by provider",
        ),
    ),
    Change("state init", is_fresh=True),
    Change("state backup", ("copy",), again=False, result="copy"),
    Change("state compact", again=False),
    Change("state restore", ("saved",), is_fresh=True, again=False),
    Change(
        "compute-market receipts export",
        ("receipts.jsonl", "--key", "node"),
        first=("compute execute j1 j2",),
        result="receipts.jsonl",
    ),
    Change("serve token", ("--rotate",), again=False, result=TOKEN),
    Change("metrics", ("--textfile", "tb.prom"), result="tb.prom"),
    Change("config init", is_fresh=True, result="home/config.toml"),
)

# Changing verbs that are left out, and why.
LEFT_OUT = {"compute calibrate": "it measures for seconds, and then writes as `metrics` does"}
LEFT_OUT |= dict.fromkeys(
    ("bid commit", "bid import", "bid reveal", "bid import-reveal"),
    "a bid has another id in every market: `test_bids_killed` kills them",
)

LEFT_OUT |= dict.fromkeys(
    ("compute courier flush", "compute courier receive"),
    "what they change is in two places: `test_flush_killed` kills them",
)
LEFT_OUT["state archive"] = "its file has an id of its own: `test_archive_killed` kills it"
LEFT_OUT["compute preempt"] = "it commits more than once: `test_preempt_killed` kills it"

_EXPORT = ("compute-market", "receipts", "export")


def changing(path: tuple[str, ...], verb: Verb) -> bool:
    """Whether a verb writes anything: the market, or files that stand for it."""
    return verb.writes or path in (("state", "backup"), ("metrics",), _EXPORT)


def lacking() -> set[str]:
    """Changing verbs that are not among the changes."""
    named = {" ".join(path) for path, verb in VERBS.items() if changing(path, verb)}
    return named - {change.verb for change in CHANGES} - set(LEFT_OUT)
