"""One flipped bit anywhere in a busy market: every command answers right, or says 9.

The bits are those of a compacted copy, in which all pages are used; the unused middle of a page is
left out. Each command runs in a process of its own, for a damaged page may end it.
"""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from blake3 import blake3

from compute_market.store import copies
from tests.support.cli import Cli, Done
from tests.support.effort import effort
from tests.support.laws import WAITING_BUNDLE
from tests.support.market import Market

pytest_plugins = ("tests.support.cli",)

PAGE = 4096
SEED = int(os.environ.get("FLIP_SEED", "1"))
FLIPS = effort(15, 2000)
# What a process is given before it counts as hung; it is over in milliseconds.
ENDS_WITHIN_S = 10

# Those that look for damage; a damaged page may end no command of theirs.
CHECKING = [("state", "check"), ("compute-market", "audit")]
READING = [
    ("compute", "list", "--json"),
    ("compute", "status", "run"),
    ("wallet", "balance", "buyer"),
    ("wallet", "history", "buyer"),
    ("compute", "offer", "list"),
]
WRITING = [
    ("compute", "cancel", "run"),
    ("compute", "cancel", "wait-low", "--by", "provider"),
    ("wallet", "deposit", "buyer", "--ct", "5"),
]
COMMANDS = [*CHECKING, *READING, *WRITING]
# The pages themselves have no checksum: one that hides an entry, or leads out of the file, is told
# by `state check` and need not be noticed by a command that asks for one thing.
UNNOTICED = 0.01


class Flip(NamedTuple):
    page: int
    offset: int
    bit: int


def test_flipped_bit_is_told_and_never_a_bug(cli: Cli, busy: Market) -> None:
    cli.audited = False
    cli.now_ms = busy.now_ms
    (cli.directory / "copy").mkdir()
    copies.backup(busy.store, str(cli.directory / "copy"))
    data = (cli.directory / "copy" / "data.mdb").read_bytes()
    right = answers(cli, data, COMMANDS)
    assert [done.code for done in right] == [0] * len(COMMANDS)
    unnoticed = told = 0
    for flip in flips(data, Random(SEED)):
        found = answers(cli, flipped(data, flip), COMMANDS)
        told += any(done.code == 9 for done in found)
        is_damage = found[0].code == 9
        for command, expected, done in zip(COMMANDS, right, found, strict=True):
            if done.code == 9 or done[:2] == expected[:2]:
                continue
            assert is_damage, (flip, command, done)
            assert command not in CHECKING, (flip, command, done)
            ended = (-signal.SIGBUS, -signal.SIGSEGV)
            assert done.code == expected.code or done.code in ended, (flip, command, done)
            unnoticed += 1
    print(f"{told} of {FLIPS} flips told, {unnoticed} of {FLIPS * len(COMMANDS)} answers unnoticed")
    assert told > FLIPS // 2
    assert unnoticed <= max(2, UNNOTICED * FLIPS * len(COMMANDS)), unnoticed


def flips(data: bytes, random: Random) -> Iterator[Flip]:
    """Bits of what is used of the pages, so that most of them say something."""
    for _ in range(FLIPS):
        while True:
            flip = Flip(random.randrange(len(data) // PAGE), random.randrange(PAGE), 0)
            header = data[flip.page * PAGE : flip.page * PAGE + 16]
            kind, lower, upper = (
                int.from_bytes(header[at : at + 2], "little") for at in (10, 12, 14)
            )
            if (flip.page > 1 and not (kind & 3 and lower <= flip.offset < upper)) or (
                flip.page <= 1 and flip.offset < 160
            ):
                yield flip._replace(bit=random.randrange(8))
                break


def flipped(data: bytes, flip: Flip) -> bytes:
    changed = bytearray(data)
    changed[flip.page * PAGE + flip.offset] ^= 1 << flip.bit
    return bytes(changed)


def answers(cli: Cli, data: bytes, commands: list[tuple[str, ...]]) -> list[Done]:
    """What each command says of a home with such a data file, which each finds afresh."""
    found: list[Done] = []
    while len(found) < len(commands):
        left = commands[len(found) :]
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _answer(cli, data, left, write)
            finally:
                os._exit(1)
        os.close(write)
        with open(read, "rb") as pipe:
            found += [Done(*json.loads(line)) for line in pipe]
        _, status = os.waitpid(child, 0)
        if len(found) < len(commands):
            found.append(Done(os.waitstatus_to_exitcode(status), "", ""))
    return found


def _answer(cli: Cli, data: bytes, commands: list[tuple[str, ...]], pipe: int) -> None:
    import faulthandler

    faulthandler.disable()
    for command in commands:
        signal.alarm(ENDS_WITHIN_S)
        shutil.rmtree(cli.home, ignore_errors=True)
        market = Path(cli.home) / "market"
        market.mkdir(parents=True)
        cli.home.chmod(0o700)
        (market / "data.mdb").write_bytes(data)
        (cli.home / "spool").mkdir()
        (cli.home / "spool" / blake3(WAITING_BUNDLE).hexdigest()).write_bytes(WAITING_BUNDLE)
        done = cli(*command)
        os.write(pipe, json.dumps(done).encode() + b"\n")
    os._exit(0)
