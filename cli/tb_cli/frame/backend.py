"""Where slices are hashed: the backend that was asked for, or what was measured to be fastest."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from compute_market import home
from compute_market.errors import UsageError
from compute_market.text import cause_of
from tb_cli.frame.session import Session

if TYPE_CHECKING:
    from compute_market.hashing.calibration import Calibration
    from compute_market.hashing.hasher import Hasher


@contextmanager
def hasher(
    session: Session, backend: str | None = None, *, here: bool = True
) -> "Iterator[Hasher | None]":
    """The hasher for a command that reads slices; None if the CPU has them all to itself, or if no
    slices are hashed `here`.

    `backend` is the command's own option, which wins over the configuration. Raises UsageError when
    a device was asked for by name and cannot be had.
    """
    name: Any = _name(session, backend) if here else "cpu"
    calibration = _stored(session) if name == "auto" else None
    # Files go to a device only where it was measured to be faster.
    if name == "cpu" or (name == "auto" and (calibration is None or calibration.device is None)):
        yield None
        return
    from compute_market.hashing.hasher import Hasher

    with Hasher(name, calibration=calibration, warn=_warn) as opened:
        yield opened


def _name(session: Session, backend: str | None) -> str:
    """The backend asked for, by the command or else by the configuration.

    Where neither a setting nor a calibration can have been made, no time is spent on reading them:
    `compute run` is called with thousands of files at a time.
    """
    if backend is not None:
        return backend
    if "TB_BACKEND" not in os.environ and not session.home.has_settings():
        return "cpu"
    return session.config.backend


def _stored(session: Session) -> "Calibration | None":
    """The calibration of this machine. One that cannot be used is ignored, with one line."""
    path = session.home.calibration
    try:
        content = home.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _warn(f"{path}: {cause_of(error)}: ignored")
        return None
    from compute_market.hashing import calibration

    try:
        return calibration.decode(content, path, calibration.machine())
    except UsageError as error:
        _warn(f"{error.message}: ignored; {error.hint}")
        return None


def _warn(text: str) -> None:
    from tb_cli.frame.render import note

    note(f"warning: {text}")
