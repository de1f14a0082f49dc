"""Verbs on admission: stats, capacity record and show."""

import sys

from compute_market.admission import capacity
from compute_market.jobs import demand
from tb_cli.frame.options import KEY
from tb_cli.frame.render import emit, fields, shown, write_json
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, number, takes

_PARTY = ("role", "identity", "used", "burst_left", "share_left")


@examples("tb-cli compute-market stats --json")
def stats(session: Session) -> None:
    """Utilization is that of the last minute; units are those ever proven."""
    write_json(session.view(demand.document))


@takes(number("units", "N", "Units per second.", least=0, most=10**15), KEY)
@examples(
    "tb-cli compute-market capacity record 120",
)
def record(session: Session, units: int, *, key: str | None) -> None:
    """The estimate is the mean of the last eight."""
    document = session.update(lambda txn: capacity.record_once(txn, units, key))
    changed = document["changed"]
    text = f"recorded {units} units/s" if changed else f"key {key} was used: unchanged"
    emit(session, document, f"{text}, the estimate is {document['estimate']} units/s")


@examples(
    "tb-cli compute-market capacity show",
    "tb-cli compute-market capacity show --json",
)
def show(session: Session) -> None:
    """The estimate is the mean of the samples in units per second, and headroom what may still be
    admitted now. A party may use its share of a minute, and beyond that what its burst bucket
    holds. Of each party it shows what it used, what its bucket holds, and what is left of its
    share, in units; the last 1000 that were charged.
    """
    document = session.view(capacity.document)
    parties = document["parties"]
    lines = fields(document | {"parties": len(parties)})
    if session.json or not sys.stdout.isatty():
        emit(session, document, [*lines, *map(shown, parties)])
        return
    from tb_cli.frame.listing import lists
    from tb_cli.frame.listing.columns import Column, Noun
    from tb_cli.frame.listing.reading import AtHand

    numbers = (Column(name, kind="number") for name in _PARTY[2:])
    columns = (*map(Column, _PARTY[:2]), *numbers)
    emit(session, document, [*lines, ""])
    lists.show(session, Noun("parties", "identity", columns, shown=_PARTY), {}, AtHand(parties))
