"""A progress bar on stderr: only on a terminal, and only once a run takes half a second."""

import sys
import time
from collections.abc import Callable
from typing import Any

_AFTER_S = 0.5


class Progress:
    """Called with the bytes done so far; use it in a `with` statement.

    `total` is the number of bytes to do, if known: then the time left is shown. It may be a
    function that finds out, which is called only if the bar is shown.
    """

    def __init__(self, total: int | Callable[[], int | None] | None = None) -> None:
        self._total = total
        self._bar: Any = None
        self._task: Any = None
        self._shows_from = time.monotonic() + _AFTER_S if sys.stderr.isatty() else float("inf")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, bytes_done: int) -> None:
        if self._bar is None:
            if time.monotonic() < self._shows_from:
                return
            self._start(bytes_done)
        self._bar.update(self._task, completed=bytes_done)

    def _start(self, bytes_done: int) -> None:
        from rich import progress
        from rich.console import Console

        total = self._total() if callable(self._total) else self._total
        self._bar = progress.Progress(
            progress.BarColumn(),
            progress.DownloadColumn(binary_units=True),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            # On the same terminal lines go above the bar; those for a file must get there.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("", total=total, completed=bytes_done)
        self._bar.start()
