"""Every verb of the command line, and a right way to call it.

Tests of what holds for all of them take them from here, so that a new one is covered by itself.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tb_cli.frame.verbs import Group, Verb
from tb_cli.tree import TREE
from tests.support.cli import HELLO

Path_ = tuple[str, ...]

DATA = Path(__file__).parents[1] / "data"


def verbs(group: Group = TREE, path: Path_ = ()) -> Iterator[tuple[Path_, Verb]]:
    for name, node in group.commands.items():
        if isinstance(node, Group):
            yield from verbs(node, (*path, name))
        else:
            yield (*path, name), node


VERBS = dict(verbs())
EACH = pytest.mark.parametrize("path", VERBS, ids=" ".join)

# The public file of the key whose seed are the bytes from 0 to 31.
FRIEND = str(Path(__file__).with_name("friend.pub"))
# A bid by that key, for a market whose id is of zeros, and its reveal: `tests.support.bids.seal`.
SEALED = str(Path(__file__).with_name("sealed.bid"))
OPENED = str(Path(__file__).with_name("open.bid"))

# Receipts of another market, and the variable that lets its key be trusted.
RECEIPTS = str(DATA / "receipts-1.jsonl")
TRUST = ("TB_NET_TRUSTED", "520555c1dec02c95e93da486ee49d6174d5b8fc4f9c5f86f0e873f8684e443ea")
# Scores of that market, of a provider `far`, signed by the same key.
SCORES = str(DATA / "scores-1.jsonl")

# A minute of a small market.
SCENARIO = str(DATA / "minute.toml")

# What that market has forwarded: one bundle, by the same key.
STICK = str(DATA / "stick")

# What to give each verb so that it gets as far as its store, or does what it does without one.
ARGUMENTS: dict[str, Path_] = {
    "demo": (),
    "compute offer post": ("--provider", "p", "--units", "1", "--price", "1"),
    "compute offer set": ("o-1", "--price", "2"),
    "compute offer list": (),
    "compute offer show": ("o-1",),
    "compute offer explain": ("o-1",),
    "compute offer withdraw": ("o-1",),
    "compute submit": (
        *("--job-id", "j9", "--buyer", "b", "--workload", "transcode", "--slice", "a.slice"),
        *("--max-price", "9"),
    ),
    "compute execute": ("j1",),
    "compute prove": ("j1", "0", HELLO),
    "compute cancel": ("j1",),
    "compute preempt": ("j1", "o-2"),
    "compute set": ("j1", "--priority", "high"),
    "compute hold": ("waits",),
    "compute release": ("waits",),
    "compute run": ("a.slice",),
    "compute status": ("j1",),
    "compute list": (),
    "compute slices": ("j1",),
    "compute history": ("j1",),
    "compute queue": (),
    "compute requirements": ("j1",),
    "compute explain": ("j1",),
    "compute stats": (),
    "compute calibrate": ("--backend", "cpu"),
    "compute wait": ("j1",),
    "compute courier send": ("a.slice", "alice"),
    "compute courier flush": (),
    "compute courier receive": (STICK,),
    "compute courier list": (),
    "compute courier show": ("0000000000000000",),
    "compute courier resend": ("0000000000000000",),
    "compute-market params show": (),
    "compute-market params propose": ("min_capacity", "5"),
    "compute-market params approve": ("1",),
    "compute-market params rollback": (),
    "compute-market params history": (),
    "compute-market prices show": (),
    "compute-market prices suggest": (),
    "compute-market stats": (),
    "compute-market subsidy": (),
    "compute-market match": (),
    "compute-market audit": (),
    "compute-market simulate": (SCENARIO,),
    "compute-market settle status": (),
    "compute-market settle arm": ("--delay-blocks", "5"),
    "compute-market settle cancel-arm": (),
    "compute-market settle dry-run": ("--reason", "r"),
    "compute-market settle tick": (),
    "compute-market settle plan": (),
    "compute-market capacity record": ("5",),
    "compute-market capacity show": (),
    "compute-market clock": ("accept",),
    "compute-market sla sweep": (),
    "compute-market sla extend": ("--by", "60"),
    "compute-market receipts list": (),
    "compute-market receipts show": ("j1",),
    "compute-market receipts export": ("receipts.jsonl", "--key", "k1"),
    "compute-market receipts verify": (RECEIPTS,),
    "compute-market receipts import": (RECEIPTS,),
    "wallet deposit": ("alice", "--ct", "1"),
    "wallet withdraw": ("alice", "--ct", "1"),
    "wallet balance": ("alice",),
    "wallet history": ("alice",),
    "wallet list": (),
    "wallet statement": ("alice",),
    "mempool submit": (
        *("--lane", "consumer", "--sender", "ann"),
        *("--fee", "7", "--bytes", "100"),
    ),
    "mempool stats": (),
    "chain status": (),
    "chain advance": ("1",),
    "net compute stats": (),
    "net reputation show": (),
    "net reputation sync": (),
    "net reputation adjust": ("prov", "+1", "--reason", "r"),
    "net reputation export": (),
    "net reputation import": (SCORES,),
    "key new": ("k1",),
    "key list": (),
    "key show": ("k1",),
    "key import-public": ("friend", FRIEND),
    "bid commit": ("job.json", "--bidder", "b", "--owner", "alice"),
    "bid export": ("b-1",),
    "bid import": (SEALED, "--owner", "alice"),
    "bid reveal": ("b-1",),
    "bid import-reveal": (OPENED,),
    "bid list": (),
    "bid show": ("b-1",),
    "status": (),
    "log": (),
    "tick": (),
    "serve run": ("--check", "--port", "0"),
    "serve token": (),
    "metrics": (),
    "batch": ("-",),
    "state init": (),
    "state check": (),
    "state backup": ("copy",),
    "state restore": ("copy",),
    "state archive": ("old.jsonl", "--before", "0"),
    "state compact": (),
    "state info": (),
    "state stats": (),
    "state root": (),
    "completion": ("bash",),
    "help": (),
    "config show": (),
    "config init": (),
    "config path": (),
}


def arguments_of(path: Path_) -> Path_:
    return (*path, *ARGUMENTS[" ".join(path)])
