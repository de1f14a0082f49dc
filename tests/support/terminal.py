"""A command that an operator runs on a terminal and answers."""

import os
import pty
import select
import subprocess
import time
from collections.abc import Sequence
from fcntl import ioctl
from signal import SIG_DFL, SIGINT, signal
from termios import TIOCSCTTY
from typing import NamedTuple

from tests.support.cli import Cli

_WITHIN_S = 30.0


class Shown(NamedTuple):
    """What a terminal showed by the end of a command, which may have had stdout elsewhere."""

    code: int
    text: str
    out: str


def answered(
    cli: Cli,
    arguments: Sequence[str],
    keys: str = "",
    *,
    after: str = "[y/N] ",
    to_pipe: bool = False,
    errors: int | None = None,
) -> Shown:
    """Run a command on a terminal of its own, and type the keys once it shows the text `after`,
    or at once without one.

    With `to_pipe` its stdout is a pipe, as in `$(…)`; its stderr may be redirected to `errors`.
    """
    master, slave = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        ioctl(0, TIOCSCTTY, 0)
        signal(SIGINT, SIG_DFL)

    process = subprocess.Popen(
        cli.command(*arguments),
        stdin=slave,
        stderr=slave if errors is None else errors,
        stdout=subprocess.PIPE if to_pipe else slave,
        preexec_fn=own_terminal,
    )
    os.close(slave)
    try:
        text = _shown(master, process, keys, after)
        out = process.stdout.read().decode() if process.stdout is not None else ""
        return Shown(process.wait(_WITHIN_S), text.replace("\r\n", "\n"), out)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        os.close(master)


def _shown(master: int, process: "subprocess.Popen[bytes]", keys: str, after: str) -> str:
    text = ""
    if not after:
        os.write(master, keys.encode())
        keys = ""
    ends = time.monotonic() + _WITHIN_S
    while time.monotonic() < ends:
        if not select.select([master], [], [], 0.2)[0]:
            if process.poll() is not None:
                break
            continue
        try:
            found = os.read(master, 65_536)
        except OSError:  # Nobody has the other end open any more.
            break
        if not found:
            break
        text += found.decode()
        if keys and after in text:
            os.write(master, keys.encode())
            keys = ""
    return text
