"""The one place that prints: results on stdout, errors on stderr, as text or JSON."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import json

from compute_market.errors import MarketError
from compute_market.text import one_line
from tb_cli.frame.session import Session


def emit(session: Session, document: Any, text: str | Iterable[str]) -> None:
    """Print one result: the document under --json, else the text, marked when it was a dry run."""
    if session.json:
        if session.dry_run and isinstance(document, dict):
            document = document | {"dry_run": True}
        write_json(document)
        return
    for line in (text,) if isinstance(text, str) else text:
        write_line(f"dry_run: {line}" if session.dry_run else line)


def write_line(text: str) -> None:
    """One line in one write: lines of processes that share a pipe do not mix, buffered or not."""
    sys.stdout.write(f"{text}\n")


def write_json(document: Any) -> None:
    """One document, indented."""
    sys.stdout.write(json.format(json.encode(document), indent=2).decode() + "\n")


def write_jsonl(document: Any) -> None:
    """One document on one line."""
    sys.stdout.write(json.encode(document).decode() + "\n")


def write_element(document: Any, *, first: bool) -> None:
    """One document of a list that is printed as it comes."""
    sys.stdout.write(("[\n" if first else ",\n") + json.encode(document).decode())


def end_elements(*, empty: bool) -> None:
    sys.stdout.write("[]\n" if empty else "\n]\n")


def fields(document: dict[str, Any]) -> list[str]:
    """A record as text: one `name: value` line per field."""
    return [f"{name}: {shown(value)}" for name, value in document.items()]


def shown(value: Any) -> str:
    """A value in a line of text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return " ".join(f"{key}={shown(inner)}" for key, inner in value.items()) or "-"
    return str(value)


class Listing:
    """A list that may be long: a table on a terminal, tab-separated lines in a pipe, or JSON.

    Without a terminal every row is written as it comes, so memory does not grow with the list.
    """

    def __init__(
        self,
        session: Session,
        columns: Sequence[str],
        *,
        jsonl: bool = False,
        at_once: bool = False,
    ) -> None:
        self._columns = columns
        self._json = session.json and not jsonl
        self._jsonl = jsonl
        self._first = True
        self._rows: list[list[str]] | None = None
        if not self._json and not jsonl and not at_once and sys.stdout.isatty():
            self._rows = []
        self._color = session.color

    def add(self, document: dict[str, Any]) -> None:
        if self._jsonl:
            write_jsonl(document)
        elif self._json:
            write_element(document, first=self._first)
        else:
            row = [shown(document.get(column)) for column in self._columns]
            if self._rows is None:
                write_line("\t".join(row))
            else:
                self._rows.append(row)
        self._first = False

    def end(self) -> None:
        if self._json:
            end_elements(empty=self._first)
        elif self._rows:
            self._table(self._rows)

    def _table(self, rows: list[list[str]]) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD)
        for column in self._columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console(no_color=not self._color, highlight=False).print(table)


def note(text: str) -> None:
    """A word to the operator that is no result."""
    sys.stderr.write(f"{text}\n")


def report(error: MarketError, as_json: bool) -> int:
    """Print an error on stderr and return its exit code."""
    if as_json:
        sys.stderr.write(json.encode(error.document()).decode() + "\n")
    else:
        note(f"error[{error.token}]: {one_line(error.message)}")
        if error.hint:
            note(f"hint: {one_line(error.hint)}")
    return error.exit_code
