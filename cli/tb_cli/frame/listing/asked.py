"""How a list is to be told, out of the options that every list has."""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from compute_market.errors import UsageError
from tb_cli.frame.listing import terminal
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.selecting import separated
from tb_cli.frame.options import check_choices
from tb_cli.frame.session import Session

Output = Literal["table", "tsv", "csv", "json", "jsonl", "ids"]

_WATCH_MIN_S, _WATCH_MAX_S = 0.1, 86_400


class Asked(Struct, frozen=True, gc=False):
    """How a list is to be told."""

    output: Output
    columns: tuple[Column, ...]
    whole: bool  # of each record the whole JSON form
    sort: Column | None
    descending: bool
    limit: int | None
    header: bool
    utc: bool
    watch_s: float | None
    fail_empty: bool


def asked_of(session: Session, noun: Noun, given: Mapping[str, Any]) -> Asked:
    """How to tell a list. Raises UsageError for a field that the noun does not have."""
    output = _output(session, given)
    chosen = separated(given.get("columns", ()))
    check_choices("--columns", chosen, tuple(noun.columns))
    if chosen and output == "ids":
        raise UsageError("--columns: ids are one column", hint="leave out -q or --columns")
    if given.get("header") and output in ("ids", "json", "jsonl"):
        raise UsageError(f"--header goes with tables and lines, {output} has no line of names")
    names = noun.table if output == "table" else noun.shown
    sort, descending = _order(noun, given.get("sort"))
    watch_s = given.get("watch")
    if watch_s is not None and not _WATCH_MIN_S <= watch_s <= _WATCH_MAX_S:
        raise UsageError(f"--watch {watch_s:g} is not {_WATCH_MIN_S}…{_WATCH_MAX_S} seconds")
    fail_empty = given.get("fail_empty", False)
    if fail_empty and watch_s is not None:
        raise UsageError("--fail-empty has one list to look at, --watch many")
    return Asked(
        output=output,
        columns=noun.named((noun.key,) if output == "ids" else chosen or names),
        whole=output in ("json", "jsonl") and not chosen,
        sort=sort,
        descending=descending,
        limit=given.get("limit"),
        header=given.get("header", False),
        utc=given.get("utc", False),
        watch_s=watch_s,
        fail_empty=fail_empty,
    )


def _output(session: Session, given: Mapping[str, Any]) -> Output:
    """The one form that is asked for. Raises UsageError for two."""
    forms: dict[Output, str] = {}
    if "output" in given:
        forms[given["output"]] = f"-o {given['output']}"
    if given.get("jsonl"):
        forms["jsonl"] = "--jsonl"
    # A line of a batch has --json from the batch, and may ask for its documents one by one.
    if session.json and not ("jsonl" in forms and session.is_line):
        forms["json"] = "--json"
    if given.get("quiet"):
        forms["ids"] = "-q"
    if len(forms) > 1:
        raise UsageError(f"{' and '.join(forms.values())}: a list has one form")
    for output in forms:
        return output
    return "table" if terminal.is_one() else "tsv"


def _order(noun: Noun, text: str | None) -> tuple[Column | None, bool]:
    if text is None:
        return None, False
    name = text.removeprefix("-")
    check_choices("--sort", [name], noun.sortable)
    return noun.columns[name], name != text
