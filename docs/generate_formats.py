"""Writes the tables of `file-formats.md`: what stands in files, from the types that hold it.

Run it with `python docs/generate_formats.py` after a field has changed; a test compares the two.
The words of the page around the tables stay as they are.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "cli"), str(ROOT / "docs")]

# What these import is found by the path above, so they stand behind it.
from msgspec import UNSET, Struct
from msgspec import inspect as types
from simulation_report import REPORT, SAMPLES
from type_tables import comments_of, sentence, shown, value, with_tables

from compute_market.archive import lines as archive
from compute_market.bids import bid_files
from compute_market.courier import envelope
from compute_market.reputation import gossip, snapshot
from compute_market.requests import (
    CapabilityRequest,
    JobRequest,
    OfferChange,
    OfferRequest,
    SliceRequest,
)
from compute_market.settlement import receipt_files
from compute_market.signatures import keys
from tb_cli.frame.file_fields import NEEDED, fields_of
from tb_cli.frame.schemas import BOUNDS, IDS
from tb_cli.frame.verbs import parameters_of
from tb_cli.offer import post
from tb_cli.offer_set import set_
from tb_cli.submit import submit

TARGET = ROOT / "docs" / "file-formats.md"
EXAMPLES = ("offer.json", "job.json")
# What operators write: the type of each, and the verb that reads it.
ASKED: dict[str, tuple[Any, Any]] = {
    "offer": (OfferRequest, post),
    "capability": (CapabilityRequest, post),
    "change of an offer": (OfferChange, set_),
    "job": (JobRequest, submit),
    "slice": (SliceRequest, submit),
}
# What commands write, by the type of a line or an object.
WRITTEN: dict[str, Any] = {
    "bid": bid_files.BidFile,
    "opening of a bid": bid_files.OpeningFile,
    "first line of receipts": receipt_files._First,
    "receipt": receipt_files._Line,
    "last line of receipts": receipt_files._Last,
    "first line of an envelope": envelope._First,
    "bundle": envelope._Line,
    "last line of an envelope": envelope._Last,
    "acknowledgement": envelope._Acknowledgement,
    "taken": envelope._Taken,
    "first line of scores": gossip._First,
    "score": gossip._Line,
    "last line of scores": gossip._Last,
    "copy of a score": snapshot._Entry,
    "public key": keys.PublicFile,
    "secret key": keys.SecretFile,
    "first line of an archive": archive.Head,
}
# Where the page has what another table names.
_LINKS: dict[Any, str] = {
    CapabilityRequest: "[object](#capability)",
    SliceRequest: "[object](#slices)",
    envelope._Taken: "[object](#what-was-taken)",
}


def render() -> str:
    """The page as it is, with the tables as they are to be."""
    return with_tables(TARGET.read_text(encoding="utf-8"), tables())


def tables() -> dict[str, list[str]]:
    """The rows of each table of the page, and of each example, by its name."""
    found = {name: list(_asked(*each)) for name, each in ASKED.items()}
    found |= {name: list(_written(kind)) for name, kind in WRITTEN.items()}
    found |= {"report": list(_reported(REPORT)), "sample": list(_reported(SAMPLES))}
    for name in EXAMPLES:
        text = (ROOT / "examples" / "workloads" / name).read_text(encoding="utf-8")
        found[name] = ["```json", *text.splitlines(), "```"]
    return found


def _asked(kind: Any, verb: Any) -> Iterator[str]:
    yield "| field | value | default | option | meaning |"
    yield "|---|---|---|---|---|"
    for field in fields_of(kind, parameters_of(verb)):
        option = f"`{field.option}`" if field.option else ""
        told = _value(kind, field.name, field.type)
        cells = (f"`{field.name}`", told, _default(field.default), option, field.meaning)
        yield f"| {' | '.join(cells)} |"


def _written(kind: Any) -> Iterator[str]:
    comments = comments_of(kind)
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    yield "| field | value | meaning |"
    yield "|---|---|---|"
    for field in info.fields:
        null = " or null" if isinstance(field.type, types.UnionType) else ""
        told = value(field.type, _LINKS.__getitem__) + null
        yield f"| `{field.name}` | {told} | {sentence(comments[field.name])} |"


def _value(kind: Any, name: str, found: types.Type) -> str:
    if name in IDS:
        return "[id](#what-holds-for-all)"
    if name == "reputation_multiplier":
        return "decimal, as text or as a number"
    bounds = BOUNDS.get((kind, name))
    if bounds is not None:
        found = types.IntType(ge=bounds.get("minimum", 0), le=bounds.get("maximum"))
    return value(found, _LINKS.__getitem__)


def _default(found: Any) -> str:
    if found is NEEDED:
        return "*needed*"
    if found is None or found is UNSET or isinstance(found, Struct):
        return "none"
    return shown(found)


def _reported(rows: dict[str, str]) -> Iterator[str]:
    yield "| field | meaning |"
    yield "|---|---|"
    yield from (f"| `{name}` | {meaning} |" for name, meaning in rows.items())


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
