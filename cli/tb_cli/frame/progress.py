"""A progress bar on stderr: only on a terminal, and only once a run takes half a second."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from compute_market.text import legible, one_line

if TYPE_CHECKING:
    from threading import Timer

_AFTER_S = 0.5
_DRAWN_EVERY_S = 0.1
_NAME_MAX = 24  # characters
_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))


class Progress:
    """Called with the bytes done so far; use it in a `with` statement.

    `total` is the number of bytes to do, if known: then the time left is shown. It may be a
    function that finds out, which is called only if the bar is shown. With `silent`, for work that
    may not call for long, the bar shows all the same. That takes a thread, so do not ask for it
    where processes are forked. Without `of_bytes` they are parts of any whole, a percentage is
    shown, and no thread draws the bar. `name` says what is worked on.
    """

    def __init__(
        self,
        total: int | Callable[[], int | None] | None = None,
        *,
        color: bool = True,
        silent: bool = False,
        of_bytes: bool = True,
        name: str = "",
    ) -> None:
        self._total = total
        self._of_bytes = of_bytes
        self._name = name
        self._drawn_at = 0.0
        self._color = color
        self._bytes_done = 0
        self._bar: Any = None
        self._task: Any = None
        self._timer: Timer | None = None
        shows = sys.stderr.isatty()
        self._shows_from = time.monotonic() + _AFTER_S if shows and not silent else float("inf")
        self._takes_timer = shows and silent

    def __enter__(self) -> "Progress":
        if self._takes_timer:
            from threading import Timer

            timer = Timer(_AFTER_S, self._start)
            with suppress(RuntimeError):  # No more threads are to be had: then there is no bar.
                timer.start()
                self._timer = timer
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, bytes_done: int) -> None:
        self._bytes_done = bytes_done
        if self._bar is None:
            if time.monotonic() < self._shows_from:
                return
            self._start()
        self._bar.update(self._task, completed=bytes_done)
        if time.monotonic() - self._drawn_at > _DRAWN_EVERY_S:
            self._drawn_at = time.monotonic()
            if self._of_bytes:
                self._bar.update(self._task, speed=_speed(self._bar.tasks[0].speed))
            else:
                self._bar.refresh()

    def _start(self) -> None:
        from rich import progress
        from rich.console import Console

        total = self._total() if callable(self._total) else self._total
        bar = progress.Progress(
            *((progress.TextColumn("{task.description}", markup=False),) if self._name else ()),
            progress.BarColumn(),
            *(
                (
                    progress.DownloadColumn(binary_units=True),
                    progress.TextColumn("{task.fields[speed]}", style="progress.data.speed"),
                )
                if self._of_bytes
                else (progress.TaskProgressColumn(),)
            ),
            progress.TimeRemainingColumn(),
            auto_refresh=self._of_bytes,
            console=Console(stderr=True, color_system="auto" if self._color else None),
            transient=True,
            # On the same terminal lines go above the bar; those for a file must get there.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = bar.add_task(
            _shortened(self._name), total=total, completed=self._bytes_done, speed=""
        )
        self._bar = bar
        bar.start()


def _speed(bytes_per_s: float | None) -> str:
    """In the units in which the bar says how much is done."""
    if bytes_per_s is None:
        return ""
    unit = next((each for each in _UNITS if bytes_per_s >= each[0]), _UNITS[-1])
    return f"{bytes_per_s / unit[0]:.1f} {unit[1]}/s"


def _shortened(name: str) -> str:
    """The end of a name that is long, which tells most; what cannot be shown is escaped."""
    shown = one_line(legible(name))
    return shown if len(shown) <= _NAME_MAX else f"...{shown[3 - _NAME_MAX :]}"


class StatusLine:
    """One line on stderr that the next one takes the place of; only on a terminal."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()
        self._shown = ""

    def __enter__(self) -> "StatusLine":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, text: str) -> None:
        if self._shows and text != self._shown:
            self.clear()
            sys.stderr.write(text)
            sys.stderr.flush()
            self._shown = text

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r" + " " * len(self._shown) + "\r")
            sys.stderr.flush()
            self._shown = ""
