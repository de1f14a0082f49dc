"""Traces and logs that a simulation plays: as files, as streams, or in a home."""

import os
import stat
import tempfile
from functools import partial
from typing import Any

from msgspec import Struct

from compute_market import home
from compute_market.config import places
from compute_market.errors import MarketError, UsageError, file_error
from compute_market.market import Market
from compute_market.simulation import replay as replays
from compute_market.simulation.replay_records import Replay
from compute_market.simulation.trace_lines import FILE_BYTES_MAX, check_lines
from tb_cli.frame.clocks import sleep, system_clock
from tb_cli.frame.lines import source_of, standard_input

_STDIN = "-"
_CHUNK = 2**16
# Settings of a home that are no matter of what is played: the log itself says the mode, and a
# market that is thrown away keeps no price board.
_OF_THE_HOME = ("settle_mode", "price_board_path", "price_board_save_interval")


class Readable(Struct, frozen=True):
    """A file that can be read as often as one likes."""

    path: str
    name: str  # as messages and reports call it

    def told(self, error: MarketError) -> UsageError:
        """An error of it under the name by which the operator knows it."""
        message = error.message.replace(self.path, self.name, 1)
        return UsageError(message, hint=error.hint)


def readable(path: str) -> Readable:
    """A file, or what comes from stdin (`-`) or a pipe, kept in a file that has no name.

    That file is gone with the process, however it ends. Raises UsageError for what cannot be read
    and for more than a trace may have.
    """
    if path != _STDIN and not _is_stream(path):
        return Readable(os.path.abspath(path), path)
    kept = tempfile.TemporaryFile()  # noqa: SIM115 - it is read again while the process lasts
    try:
        with standard_input() if path == _STDIN else open(path, "rb") as source:
            size = 0
            chunks = iter(partial(source.read, _CHUNK), b"")
            for chunk in check_lines(source_of(path), chunks):
                size += len(chunk)
                if size > FILE_BYTES_MAX:
                    raise UsageError(f"{source_of(path)}: has more than {FILE_BYTES_MAX} bytes")
                kept.write(chunk)
        kept.flush()
    except OSError as error:
        raise file_error(source_of(path), error) from error
    # The number is not given back: runs in processes of their own read it as well.
    return Readable(f"/dev/fd/{os.dup(kept.fileno())}", source_of(path))


def replayed(path: str) -> tuple[Replay, dict[str, Any]]:
    """What a log or the market of a home tells, and the settings of that home.

    The home is only read. Raises UsageError, and what opening a market raises.
    """
    if path != _STDIN and os.path.isdir(path):
        with Market.open(path, clock=system_clock(), sleep=sleep) as market:
            return market.view(replays.of_market), _settings(path)
    log = readable(path)
    try:
        return replays.of_log(log.path, log.name), {}
    except UsageError as error:
        raise log.told(error) from error


def _settings(directory: str) -> dict[str, Any]:
    """What the `config.toml` of a home sets, as a scenario has it; it was found to be sound."""
    path = os.path.join(directory, home.CONFIG)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise file_error(path, error) from error
    document, _ = places.read(content, path)
    return {key: value for key, value in document.items() if key not in _OF_THE_HOME}


def _is_stream(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False  # Whoever reads it says what is wrong.
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
