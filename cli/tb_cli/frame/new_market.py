"""What comes with a market that is made: its directory before, and after it what it begins with."""

import os
from typing import TYPE_CHECKING

from compute_market.engine import Engine
from tb_cli.frame import mounts, trial
from tb_cli.frame.home import Home
from tb_cli.frame.render import note

if TYPE_CHECKING:
    import tempfile


def directory(home: Home, *, stays: bool) -> "tuple[str, tempfile.TemporaryDirectory[str] | None]":
    """Where to make the market of a home, and what has to be cleaned up after one that goes again.

    Raises UsageError where the home cannot be one.
    """
    home.check()
    if stays:
        home.make()
        return home.path, None
    thrown_away = trial.throw_away()
    return thrown_away.name, thrown_away


def begin(market: Engine, home: Home) -> None:
    """Let a market begin with the scores that lie in its home, and warn of a file system of other
    machines."""
    if os.path.lexists(home.reputation):
        from tb_cli.frame import snapshots

        snapshots.begin_with(market, home)
    if (kind := mounts.network_type(home.path)) is not None:
        note(
            f"warning: {home.path} is on a file system of type {kind}: locks and memory maps "
            "of other machines do not work there; put the home on a local disk"
        )
