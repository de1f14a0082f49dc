"""`compute courier flush`: forwards the bundles that wait.

With nothing to forward it is done after one look, and imports nothing that forwards.
"""

from typing import TYPE_CHECKING, Any

from compute_market.errors import exit_code
from compute_market.store.schema import BUNDLES_PENDING
from tb_cli.frame.options import LIMIT
from tb_cli.frame.render import emit, note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, option, takes

if TYPE_CHECKING:
    from tb_cli.network.forwarded import Forwarded

_PARALLEL_MAX = 64
_PARALLEL = 4
_ATTEMPTS_MAX = 1000


@examples("tb-cli compute courier flush --parallel 4")
@takes(
    option(
        "--parallel",
        "Bundles, or batches of them for a directory, on their way at once.",
        kind="integer",
        least=1,
        most=_PARALLEL_MAX,
        default=_PARALLEL,
    ),
    LIMIT,
    option(
        "--max-attempts",
        "Attempts for each bundle. [the setting `courier_max_attempts`]",
        kind="integer",
        least=1,
        most=_ATTEMPTS_MAX,
    ),
)
def flush(session: Session, *, parallel: int, limit: int | None, max_attempts: int | None) -> int:
    """What fails is tried again after a wait that doubles each time. What still fails waits for the
    next flush, and the exit code is 10 then. Only what its destination has confirmed is
    acknowledged, and its sender is paid with that. A dry run sends nothing, and takes it that all
    would be confirmed.
    """
    pending = session.view(lambda txn: txn.size(BUNDLES_PENDING))
    if pending and not session.dry_run:
        return _forward(session, parallel, limit, max_attempts)
    taken = pending if limit is None else min(pending, limit)
    emit(session, _document(taken, pending), _text(taken, pending))
    return exit_code("pending") if taken < pending else 0


def _forward(session: Session, parallel: int, limit: int | None, max_attempts: int | None) -> int:
    from tb_cli.frame.guard import Terminated
    from tb_cli.frame.progress import StatusLine
    from tb_cli.frame.signing import prepare_to_verify
    from tb_cli.network.forwarded import Forwarded
    from tb_cli.network.forwarding import forward

    prepare_to_verify()
    line = StatusLine()
    last = Forwarded()

    def show(came: "Forwarded", wait_s: float | None) -> None:
        nonlocal last
        last = came
        line.show(_progress(came, wait_s))

    try:
        came = forward(
            session, parallel=parallel, limit=limit, max_attempts=max_attempts, show=show
        )
    except (KeyboardInterrupt, Terminated):
        line.clear()
        note(f"interrupted: {_text(last.acknowledged, _total(last))}; run it again")
        raise
    line.clear()
    document = _document(came.acknowledged, _total(came)) | {
        "refused": came.refused,
        "failed": came.failed,
        "left": came.left,
        "held": came.held,
        "attempts": came.attempts,
        "failures": came.failures,
        "problems": [
            {"dest": dest, "bundles": problem.bundles, "error": problem.error}
            for dest, problem in came.problems.items()
        ],
    }
    emit(session, document, _text(came.acknowledged, _total(came)))
    if not session.json:
        _tell(came)
    return exit_code("pending") if came.left else 0


def _tell(came: "Forwarded") -> None:
    """What kept a flush from forwarding all, on stderr."""
    for dest, problem in came.problems.items():
        note(f"{dest}: {problem.bundles} not taken: {problem.error}")
    if came.untold:
        note(f"and {len(came.untold)} more destinations took less than all")
    if came.held:
        from tb_cli.frame.times import local  # A flush with nothing to forward needs none.

        verb = "is" if came.held == 1 else "are"
        until = local(came.held_until_ms)
        note(f"{came.held} {verb} held by another flush until {until}")


def _total(came: "Forwarded") -> int:
    """All that there was to be forwarded."""
    return came.acknowledged + came.refused + came.left


def _progress(came: "Forwarded", wait_s: float | None) -> str:
    waits = "" if wait_s is None or wait_s < 1 else f" (next try in {wait_s:.0f} s)"
    return f"sent {came.acknowledged}, retried {came.retried}, left {came.left}{waits}"


def _document(acknowledged: int, total: int) -> dict[str, Any]:
    """As if all that was tried had been acknowledged at once."""
    return {
        "acknowledged": acknowledged,
        "bundles": total,
        "refused": 0,
        "failed": 0,
        "left": total - acknowledged,
        "held": 0,
        "attempts": acknowledged,
        "failures": 0,
        "problems": [],
    }


def _text(acknowledged: int, total: int) -> str:
    return f"acknowledged {acknowledged} of {total} bundles"
