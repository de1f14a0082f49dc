"""What a home remembers of its last backup: when it was made, and where."""

import os
from typing import Annotated

from msgspec import Meta, Struct, json

from compute_market import home as names
from compute_market.errors import MarketError
from compute_market.learned import learned
from tb_cli.frame import results
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.home import Home
from tb_cli.frame.render import note


class Backup(Struct):
    at_ms: Annotated[int, Meta(ge=0, le=2**53)]
    path: str
    bytes: int


def remember(home: Home, target: str, size: int) -> None:
    """Note in the home that there is a backup. The backup is good without."""
    path = os.path.abspath(target) if target != "-" else "-"
    text = json.encode(Backup(now_ms(), path, size)).decode()
    try:
        results.replace(home.last_backup, f"{text}\n", beside=None)
    except MarketError as error:
        note(f"warning: {error.message}; `state info` will not know of this backup")


def last(home: Home) -> Backup | None:
    """What was noted last; None without a backup, or when that is unreadable."""
    try:
        return json.decode(names.read(home.last_backup), type=learned(Backup))
    except (OSError, ValueError):
        return None
