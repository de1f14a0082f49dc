"""`state archive`: what ended long ago goes from the market to a file."""

import os
from typing import Any

from compute_market.archive import archives, archiving
from compute_market.archive.archiving import Runner
from compute_market.errors import UsageError
from compute_market.records import DEADLINE_MAX
from compute_market.text import counted
from tb_cli.frame import files, guard
from tb_cli.frame.progress import StatusLine
from tb_cli.frame.render import emit, note
from tb_cli.frame.results import check_free
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, option, takes


@takes(
    argument("target", "FILE", "Where they go: a new file, or one that was interrupted."),
    option(
        "--before",
        "How long ago a job has ended at least.",
        kind="integer",
        unit="seconds",
        least=0,
        most=DEADLINE_MAX,
        required=True,
    ),
)
@examples("tb-cli state archive --before 90d /backup/jobs-2026-11.jsonl")
def archive(session: Session, target: str, *, before: int) -> None:
    """Jobs go with their slices, their receipts and their postings, and so do old deposits and
    withdrawals. Ids and keys stay taken, balances go on from what they were, and the audit stays
    clean. A job stays while a receipt of it waits to be paid.

    The file has a piece before the market lets go of it. A run that was killed is run again with
    the same file, and goes on where it was. A file that has lost what the market let go of is exit
    9.
    """
    files.check_text(target, "the file")
    if target == "-":
        raise UsageError("an archive does not go to stdout", hint="./- is a file called so")
    check_free(target, session.home.path)
    end = session.view(lambda txn: max(0, txn.now - before))
    status = StatusLine()
    gone: dict[str, int] | None = None

    def tell(by_now: dict[str, int]) -> None:
        nonlocal gone
        gone = by_now
        status.show(f"{counted(gone['jobs'], 'job')} and {counted(gone['postings'], 'posting')}")

    market = session.market
    run = Runner(session.view, session.update, market.wall_ms, session.let_go, tell)
    try:
        if session.dry_run:
            document = archiving.attempt(run, target, end)
        else:
            document = archiving.archive(run, target, end, os.urandom(archives.ID_BYTES))
    except (KeyboardInterrupt, guard.Terminated):
        status.clear()
        if gone is not None:
            note(f"interrupted after {counted(gone['jobs'], 'job')}; run it again with {target}")
        raise
    status.clear()
    text = "nothing to archive"
    if document["changed"]:
        total = document["total"]
        text = f"archived {_counts(document)} to {target}"
        if any(total[name] != document[name] for name in total):
            text += f", which has {_counts(total)}"
    emit(session, document, text)


def _counts(of: dict[str, Any]) -> str:
    jobs, receipts, postings = (
        counted(of[f"{noun}s"], noun) for noun in ("job", "receipt", "posting")
    )
    return f"{jobs}, {receipts} and {postings}"
