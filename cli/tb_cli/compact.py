"""`state compact`: the data file without what is free in it."""

import os

from compute_market import events
from compute_market.store import copies
from compute_market.store.compaction import TOKEN_BYTES
from compute_market.store.txn import Txn
from compute_market.store.usage import measured
from tb_cli.frame.render import emit
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples


@examples("tb-cli state compact")
def compact(session: Session) -> None:
    """What archives and other changes have freed goes back to the disk. It takes the write lock for
    as long as it takes to copy what is used, and room for that copy beside the old file. Others go
    on with the new file; a reader that has begun reads the old one to its end.
    """
    if session.dry_run:
        usage = measured(session.market.store)
        _tell(session, usage.bytes, usage.bytes - usage.free_pages * usage.page_bytes)
        return
    session.update(lambda txn: None)  # What an older release stored is brought up to date.
    before, after = copies.compact(session.market.store, os.urandom(TOKEN_BYTES))

    def note(txn: Txn) -> None:
        events.note(txn, "store_compacted", bytes_before=before, bytes_after=after)

    session.update(note)
    _tell(session, before, after)


def _tell(session: Session, before: int, after: int) -> None:
    document = {"home": str(session.home), "bytes_before": before, "bytes_after": after}
    emit(session, document, f"compacted {session.home}: {before} bytes before, {after} after")
