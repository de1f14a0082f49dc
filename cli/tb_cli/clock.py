"""The verb on time: what the clocks say, and whether the market believes them."""

from typing import Any

from compute_market import clock as clocks
from compute_market.clock import Time
from compute_market.errors import UsageError
from compute_market.store.txn import Txn
from tb_cli.frame.render import emit, shown
from tb_cli.frame.session import Session
from tb_cli.frame.times import local
from tb_cli.frame.verbs import argument, examples, takes

_ACCEPT = "accept"


@examples("tb-cli compute-market clock")
@takes(
    argument(
        "action",
        f"[{_ACCEPT}]",
        "accept: take the clock as it is, after it was set or a backup was restored.",
        required=False,
    )
)
def clock(session: Session, action: str | None) -> None:
    """The clock is not believed when it is behind market time, when it moved ahead of the boot
    clock, or after a restore. Market time stands still then, and nothing falls due.

    A time that was skipped counts as an outage: jobs whose deadline fell into it fail without
    fault. Market time never goes back. It goes on ahead of a clock that was set back and accepted.
    """
    if action is None:
        _show(session)
    elif action == _ACCEPT:
        _accept(session)
    else:
        raise UsageError(f"clock {action!a}: only {_ACCEPT} can follow")


def _show(session: Session) -> None:
    session.tells_of_clock()
    time, document = session.view(lambda txn: _read(session, txn))
    emit(session, document, _lines(time, document))


def _accept(session: Session) -> None:
    session.tells_of_clock()

    def act(txn: Txn) -> tuple[bool, Time, dict[str, Any]]:
        changed = clocks.accept(txn, session.market.read())
        return changed, *_read(session, txn)

    changed, time, document = session.update(act)
    text = "the clock is accepted" if changed else "the clock is believed, nothing was accepted"
    emit(session, document | {"changed": changed}, [text, *_lines(time, document)])


def _read(session: Session, txn: Txn) -> tuple[Time, dict[str, Any]]:
    time = clocks.judge(txn, session.market.read())
    return time, clocks.document(txn, time)


def _lines(time: Time, document: dict[str, Any]) -> list[str]:
    outage = document["last_outage"]
    ends = [local(at_ms) for at_ms in outage.values()] if outage else []
    return [
        f"clock: {local(time.reading.wall_ms)}",
        f"since boot: {_seconds(time.reading.boot_ms)}",
        f"market time: {local(time.now_ms)}",
        f"ahead of the clock: {_seconds(time.kept.ahead_ms)}",
        f"last outage: {' to '.join(ends) or '-'}",
        f"believed: {_believed(time)}",
    ]


def _believed(time: Time) -> str:
    if not time.why:
        return "yes"
    return f"{time.why} until it is right or `tb-cli compute-market clock {_ACCEPT}` takes it"


def _seconds(ms: int | None) -> str:
    return shown(None if ms is None else ms // 1000) + ("" if ms is None else " s")
