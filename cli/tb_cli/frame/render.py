"""The one place that prints: results on stdout, errors on stderr, as text or JSON."""

import sys
from collections.abc import Iterable
from typing import Any

from msgspec import json

from compute_market.errors import MarketError
from compute_market.text import one_line, printable, printable_json
from tb_cli.frame.session import Session


def emit(session: Session, document: Any, text: str | Iterable[str]) -> None:
    """Print one result: the document under --json, else the text, marked when it was a dry run."""
    if session.json:
        if session.dry_run and isinstance(document, dict):
            document = document | {"dry_run": True}
        write_json(document)
        return
    mark = "dry_run: " if session.dry_run else ""
    for line in (text,) if isinstance(text, str) else text:
        write_line(mark + printable(line))


def write_line(text: str) -> None:
    """One line in one write: lines of processes that share a pipe do not mix, buffered or not."""
    sys.stdout.write(f"{text}\n")


def write_json(document: Any) -> None:
    """One document, indented."""
    sys.stdout.write(_json(json.format(_encoded(document), indent=2)) + "\n")


def write_jsonl(document: Any) -> None:
    """One document on one line."""
    sys.stdout.write(_json(_encoded(document)) + "\n")


def write_element(document: Any, *, first: bool) -> None:
    """One document of a list that is printed as it comes."""
    sys.stdout.write(("[\n" if first else ",\n") + _json(_encoded(document)))


def end_elements(*, empty: bool) -> None:
    sys.stdout.write("[]\n" if empty else "\n]\n")


def write_head(document: dict[str, Any], name: str) -> None:
    """The fields before a list, called `name`, of a document that is printed as it comes."""
    fields_before = _encoded(document).decode()[:-1]
    sys.stdout.write(printable_json(f'{fields_before},"{name}":'))


def write_tail(document: dict[str, Any]) -> None:
    """The fields after the list, and the end of the document."""
    sys.stdout.write(printable_json(f",{_encoded(document).decode()[1:]}\n"))


def _encoded(document: Any) -> bytes:
    encoded = json.encode(document)
    if getattr(sys.stdout, "amounts_are_text", False):
        from compute_market.amount_text import as_text  # Few ask for it.

        encoded = json.encode(as_text(json.decode(encoded)))
    return encoded


def _json(encoded: bytes) -> str:
    return printable_json(encoded.decode())


def fields(document: dict[str, Any]) -> list[str]:
    """A record as text: one `name: value` line per field; instants are local time on a terminal."""
    if sys.stdout.isatty():
        from tb_cli.frame.times import with_local  # Pipes keep integers.

        document = with_local(document)
    return [f"{name}: {shown(value)}" for name, value in document.items()]


def shown(value: Any) -> str:
    """A value in a line of text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return " ".join(f"{key}={shown(inner)}" for key, inner in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        texts = any(isinstance(each, str) for each in value)
        return ("|" if texts else " ").join(map(shown, value)) or "-"
    return printable(str(value))


def note(text: str) -> None:
    """A word to the operator that is no result."""
    sys.stderr.write(f"{printable(text)}\n")


def report(error: MarketError, as_json: bool, *, color: bool = False) -> int:
    """Print an error on stderr and return its exit code."""
    if as_json:
        sys.stderr.write(_json(_encoded(error.document())) + "\n")
    else:
        head = f"error[{error.token}]:"
        if color:
            head = f"\x1b[31m{head}\x1b[0m"
        sys.stderr.write(f"{head} {one_line(error.message)}\n")
        if error.hint:
            note(f"hint: {one_line(error.hint)}")
    return error.exit_code
