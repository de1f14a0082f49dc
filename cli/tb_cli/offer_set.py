"""`compute offer set`: other terms for an offer, more units or fewer."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import UsageError
from compute_market.jobs.submit import change_offer
from compute_market.json_documents import NO_FILE, Document
from compute_market.offers import standing
from compute_market.requests import OFFER_CHANGEABLE, OfferChange, build
from compute_market.store.txn import Txn
from compute_market.text import clipped
from tb_cli.frame import bulk
from tb_cli.frame.ids import Ids
from tb_cli.frame.json_lines import JsonLines
from tb_cli.frame.options import ATOMIC, CHUNK, FAILED_TO, JSONL, KEY, amount, by_option
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, group, option, takes

# What a line calls a field; the others by their names.
_WORDS = {"price_per_unit": "price", "reputation_multiplier": "multiplier"}


@examples(
    "tb-cli compute offer set o-1 --price 9",
    "tb-cli compute offer set o-1 o-2 --units +50 -n",
    "tb-cli compute offer set o-1 --units +50 --key restock-1",
)
@takes(
    argument(
        "offer_ids",
        "OFFER…|-",
        "Offer ids; - reads offers from stdin, as `offer show --json` prints them.",
        many=True,
        complete="offer",
    ),
    group(
        "given",
        amount(
            "--price", "Quoted price of one unit; 0 is the market price.", name="price_per_unit"
        ),
        option("--units", "So many units more, or fewer of those left.", metavar="+N|-N"),
        amount("--fee-pct-ct", "Percent paid in CT."),
        option("--multiplier", "Reputation multiplier, a decimal.", name="reputation_multiplier"),
    ),
    KEY,
    CHUNK,
    ATOMIC,
    FAILED_TO,
    JSONL,
)
def set_(
    session: Session,
    offer_ids: list[str],
    *,
    given: dict[str, Any],
    key: str | None,
    chunk: int | None,
    atomic: bool,
    failed_to: str | None,
    jsonl: bool,
) -> int:
    """For matches to come: jobs that hold units keep their quote. Jobs that wait are tried by the
    next change of the market. Units are only taken away while they are left; of an offer on stdin
    `units` is the whole number. With --dry-run it says what would become other.
    """
    _check(offer_ids, given, key)

    def act(txn: Txn, asked: OfferChange) -> bulk.Outcome:
        changed = change_offer(txn, asked, key)
        document = standing.document(txn, changed.offer)
        document |= {"changed": bool(changed.before), "before": changed.before}
        name = asked.offer_id
        after = changed.after
        told = ", ".join(
            f"{_WORDS.get(field, field)} {_text(value)} -> {_text(after[field])}"
            for field, value in changed.before.items()
        )
        text = f"changed offer {name}: {told}" if told else f"offer {name} unchanged"
        return bulk.Outcome(name, f"{text}: {changed.offer.state}" if not told else text, document)

    def prepare(asked: OfferChange) -> None:
        if asked.price_per_unit == 0:
            from tb_cli.frame import price_board  # Few offers ask for it.

            price_board.load_once(session)

    keep = failed_to is not None
    source: JsonLines | Ids
    asked: Iterable[bulk.Given[OfferChange]]
    if offer_ids == ["-"]:
        source = JsonLines(["-"], keep=keep)
        asked = _changes(source, given, key)
    else:
        source = Ids(offer_ids, "offer id", keep=keep)
        asked = (_change(NO_FILE, given | {"offer_id": each.name}, each.place) for each in source)
    return bulk.run(
        session,
        asked,
        act,
        prepare=prepare,
        id_field="offer_id",
        chunk=chunk,
        atomic=atomic,
        jsonl=jsonl,
        failed_to=failed_to,
        source=source,
    )


def _check(offer_ids: list[str], given: dict[str, Any], key: str | None) -> None:
    """Raise UsageError for what no offer can be asked to do."""
    from_stdin = "-" in offer_ids
    if from_stdin and len(offer_ids) > 1:
        raise UsageError("- stands alone: the offers on stdin say which they are")
    if not from_stdin and not given:
        raise UsageError(
            "nothing is to be changed", hint="give --price, --units, --fee-pct-ct or --multiplier"
        )
    if key is not None and len(set(offer_ids)) > 1:
        raise UsageError("--key is that of one change, and more are given")
    units = given.get("units")
    if units is not None and (
        not re.fullmatch("[+-][0-9]{1,19}", units) or int(units[1:]) > AMOUNT_MAX
    ):
        raise UsageError(
            f"--units: {clipped(units)!a} does not say how many more or fewer",
            hint="+50 adds units, -50 takes away units that are left",
        )


def _changes(
    source: JsonLines, given: dict[str, Any], key: str | None
) -> Iterator[bulk.Given[OfferChange]]:
    for number, (_, document, place) in enumerate(source):
        if number and key is not None:
            raise UsageError("--key is that of one change, and more are given")
        yield _change(document, given, place)


def _change(
    document: Document, given: dict[str, Any], place: bulk.Place | None
) -> bulk.Given[OfferChange]:
    """One change as it was asked for. What is wrong with it is its own outcome."""
    try:
        if document.error is not None:
            raise document.error
        fields = document.fields | given
        asked = build(fields, OfferChange, document.source)
        if not fields.keys() & set(OFFER_CHANGEABLE):
            raise UsageError(f"{document.source}: nothing is to be changed")
    except UsageError as error:
        alone = document is NO_FILE
        named = by_option(error, given, {}, set_, alone=alone)
        return bulk.Given(given["offer_id"] if alone else document.source, None, named, place)
    return bulk.Given(asked.offer_id, asked, None, place)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
