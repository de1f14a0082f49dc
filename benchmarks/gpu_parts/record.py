"""What a part has measured, in a file that is written anew with each figure."""

import json
import os
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any


class Skip(Exception):
    """The part is not for this backend, or a tool of others is not there: nothing has failed."""


class Record:
    """The figures of one part, its claims, and its rows for the table in README.md."""

    def __init__(self, path: Path, part: str, backend: str, *, quick: bool) -> None:
        self.directory = path.parent
        self._path = path
        self._document: dict[str, Any] = {
            "part": part,
            "backend": backend,
            "quick": quick,
            "status": "unfinished",
            "reason": "",
            "missed": [],
            "rows": [],
            "measured": {},
        }
        self._save()

    @property
    def status(self) -> str:
        return str(self._document["status"])

    @property
    def measured(self) -> dict[str, Any]:
        found: dict[str, Any] = self._document["measured"]
        return found

    def put(self, name: str, value: Any) -> None:
        """Keep a figure, a text or a table; times are in seconds, rates in bytes per second."""
        print(f"{name}: {value}", flush=True)
        self.measured[name] = value
        self._save()

    def row(self, claim: str, bound: str, measured: str) -> None:
        self._document["rows"].append([claim, bound, measured])
        self._save()

    def claim(
        self,
        text: str,
        value: float,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        unit: str = "×",
    ) -> None:
        """A row with its bound, which is remembered if it is missed."""
        kept = value <= at_most if at_most is not None else value >= (at_least or 0)
        if not kept:
            self._document["missed"].append(text)
        bound = f"{at_most if at_most is not None else at_least:g} {unit}"
        self.row(text, bound, f"{value:.2f} {unit}" if kept else f"**{value:.2f} {unit}**")

    def __enter__(self) -> "Record":
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Whatever happens within is how the part ends, an interrupt excepted."""
        if error is None:
            self._end("ok", "")
        elif isinstance(error, Skip):
            self._end("ok", f"skipped: {error}")
        else:
            traceback.print_exception(error)
            self._end("failed", f"{type(error).__name__}: {error}".splitlines()[0])
        return error is None or not isinstance(error, KeyboardInterrupt)

    def _end(self, status: str, reason: str) -> None:
        self._document |= {"status": status, "reason": reason}
        self._save()

    def _save(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._document, indent=1) + "\n", encoding="utf-8")
        os.replace(new, self._path)
