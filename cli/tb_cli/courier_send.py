"""Verbs on bundles that are to go to other markets: send, resend."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from compute_market import idempotency
from compute_market.courier import courier, documents
from compute_market.courier.courier import Bundle
from compute_market.errors import RefusedError, UsageError
from compute_market.jobs import drafts
from compute_market.records import Job, check_id
from compute_market.store.txn import Txn
from compute_market.text import counted
from tb_cli.frame import bulk, bundles, files
from tb_cli.frame.bundle_content import OpenFile, Piece, stream_pieces
from tb_cli.frame.home import check_elsewhere
from tb_cli.frame.ids import Ids
from tb_cli.frame.options import ATOMIC, BUNDLE_IDS, CHUNK, FAILED_TO, JSONL, KEY
from tb_cli.frame.progress import Progress
from tb_cli.frame.render import emit
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, option, takes


@examples("tb-cli compute courier send bundle.bin alice")
@takes(
    argument("file", "FILE|-", "The bundle, or - for stdin."),
    argument("sender", "SENDER", "Who earns the reward once it has arrived."),
    option(
        "--to",
        "dir:PATH, http://HOST/…, https://HOST/… or exec:PROGRAM. [the setting `courier_dest`]",
        metavar="DEST",
    ),
    option(
        "--need",
        "A job file: nothing is stored unless an offer fits it.",
        metavar="FILE",
    ),
    KEY,
)
def send(
    session: Session,
    file: str,
    sender: str,
    *,
    to: str | None,
    need: str | None,
    key: str | None,
) -> None:
    """A copy of the bundle lies in the spool before its receipt is stored: what was told to be
    stored survives a power cut. `compute courier flush` forwards it.
    """
    check_id(sender, "sender")
    if key is not None:
        check_id(key, "key")
    dest = session.config.courier_dest if to is None else _destination(to)
    scheme, _, path = dest.partition(":")
    if scheme == "dir":
        check_elsewhere(session.home.path, os.path.join(session.home.path, path))
    job = None if need is None else _job(session, need)
    with _content(file) as (pieces, size, room):
        if job is not None:
            session.view(partial(_check_need, job=job, key=key))  # Before anything is made or read.
        session.home.check()
        session.open_told()
        with (
            Progress(size, color=session.color, name=file) as progress,
            bundles.spooled(session, pieces, room=room, advance=progress) as content,
        ):

            def act(txn: Txn) -> dict[str, Any]:
                bundle = Bundle(content.bundle_hash, content.size, sender, dest)
                sent = courier.send_once(txn, bundle, bundles.random_ids(), key)
                if job is not None and sent.changed:
                    _check_need(txn, job)
                if sent.receipt is None:
                    return {"id": sent.id_text, "changed": False}
                return documents.document(txn, sent.receipt) | {"changed": sent.changed}

            document = session.update(act)
    text = f"bundle {document['id']} was sent before, unchanged"
    if document["changed"]:
        size_told = counted(content.size, "byte")
        text = f"stored bundle {document['id']}: {size_told} from {sender} to {dest}"
    emit(session, document, text)


@examples("tb-cli compute courier resend 00f1c8a2b3d4e5f6")
@takes(
    BUNDLE_IDS,
    CHUNK,
    ATOMIC,
    FAILED_TO,
    JSONL,
)
def resend(
    session: Session,
    bundle_ids: list[str],
    *,
    chunk: int | None,
    atomic: bool,
    failed_to: str | None,
    jsonl: bool,
) -> int:
    """Whoever has taken it before acknowledges it again; what was acknowledged once earns no more.

    One that waits is free for the next flush at once, also where a flush that was killed has it. A
    handoff that has ended is never sent again; see `compute preempt`.
    """

    def check(bundle_id: str) -> None:
        receipt_id = courier.parse_id(bundle_id)
        receipt = session.view(lambda txn: courier.get(txn, receipt_id))
        bundles.open_checked(session.home, receipt).close()

    def act(txn: Txn, bundle_id: str) -> bulk.Outcome:
        receipt = courier.resend(txn, courier.parse_id(bundle_id))
        document = documents.document(txn, receipt) | {"changed": True}
        return bulk.Outcome(bundle_id, f"bundle {bundle_id} waits for the next flush", document)

    session.home.check_market()
    ids = Ids(bundle_ids, "bundle id", keep=failed_to is not None)
    with bundles.kept_as_it_is(session):
        return bulk.run(
            session,
            ids,
            act,
            id_field="id",
            prepare=check,
            source=ids,
            chunk=chunk,
            atomic=atomic,
            jsonl=jsonl,
            failed_to=failed_to,
        )


@contextmanager
def _content(file: str) -> Iterator[tuple[Iterator[Piece], int | None, int]]:
    """The bytes of a bundle, how many there are if that is known, and how much room they take."""
    if file == "-":
        yield stream_pieces(), None, 0
        return
    files.check_text(file, "the bundle")
    with OpenFile(file) as opened:
        yield opened.pieces(), opened.size, opened.stored


def _destination(given: str) -> str:
    """A destination as it is stored: it means the same wherever it is read.

    Raises UsageError for what is none.
    """
    from compute_market.config import addresses  # That of the settings was checked there.

    scheme, _, rest = given.partition(":")
    # A program without a slash is looked for where the shell does.
    if rest and (scheme == "dir" or (scheme == "exec" and "/" in rest)):
        given = f"{scheme}:{os.path.abspath(os.path.expanduser(rest))}"
    try:
        addresses.check_destination(given)
    except UsageError as error:
        raise UsageError(f"--to: {error.message}", hint=error.hint) from None
    return given


def _job(session: Session, path: str) -> Job:
    from tb_cli.frame import job_files

    root = session.config.slice_root
    found = job_files.draft_of(path, {}, {}, slice_root=root, verb=send)
    return drafts.sketch(found.request, found.inputs)


def _check_need(txn: Txn, job: Job, key: str | None = None) -> None:
    """Raise RefusedError unless an offer fits the job, or something was sent under the key."""
    from compute_market.scheduler import matching  # Most bundles need no job.
    from compute_market.scheduler.matching import NoMatch
    from compute_market.settlement import modes

    if idempotency.is_known(txn, key):
        return
    found = matching.match(txn, job, real=modes.is_real(txn))
    if isinstance(found, NoMatch):
        raise RefusedError(
            f"the bundle is not needed: {found.message}",
            hint=found.way_out,
            reason=found.result,
        )
