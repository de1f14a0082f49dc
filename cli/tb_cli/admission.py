"""Verbs on admission: stats, capacity record and show."""

from compute_market.admission import capacity
from compute_market.jobs import demand
from tb_cli.frame.render import emit, fields, shown, write_json
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import number, takes


def stats(session: Session) -> None:
    """Utilization is that of the last minute; units are those ever proven."""
    write_json(session.view(demand.document))


@takes(number("units", "N", "Units per second.", least=0, most=10**15))
def record(session: Session, units: int) -> None:
    """The estimate is the mean of the last eight."""
    estimate = session.update(lambda txn: capacity.record(txn, units))
    emit(
        session,
        {"recorded": units, "estimate": estimate},
        f"recorded {units} units/s, the estimate is {estimate} units/s",
    )


def show(session: Session) -> None:
    """The estimate is the mean of the samples in units per second, and headroom what may still be
    admitted now. Of each party it shows what it used of the last minute and what its burst bucket
    holds, in units; the last 1000 that were charged.
    """
    document = session.view(capacity.document)
    parties = document["parties"]
    lines = fields(document | {"parties": len(parties)})
    emit(session, document, [*lines, *map(shown, parties)])
