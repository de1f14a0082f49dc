"""Keys that are brought into the home, one at a time, and noted in the log."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from compute_market import events
from compute_market.errors import ConflictError
from compute_market.records import EventName
from compute_market.signatures import keys
from compute_market.signatures.keys import Key
from compute_market.signatures.signatures import SEED_BYTES
from tb_cli.frame import key_files
from tb_cli.frame.session import Session


@contextmanager
def alone(session: Session, name: str) -> Iterator[None]:
    """A market, in which nobody else makes keys meanwhile; in a dry run nothing is made."""
    key_files.check_name(name)
    session.home.check()
    session.open_told()
    timeout_ms = round(session.config.lock_timeout_secs * 1000)
    with nullcontext() if session.dry_run else key_files.alone(session.home, timeout_ms):
        yield


def make(session: Session, name: str) -> Key:
    """A new key of one's own; the caller is `alone`. Raises ConflictError if the name is taken."""
    found = key_files.find(session.home, name)
    if found is not None and (found.seed is None or not key_files.is_begun(session.home, name)):
        raise ConflictError(
            f"key {name} exists with id {found.key_id.hex()}", hint="choose another name"
        )
    key = found or keys.key_of(os.urandom(SEED_BYTES))
    keep(session, name, key)
    return key


def keep(session: Session, name: str, key: Key) -> None:
    """Write the file of a key, and note it in the log; the caller is `alone`."""
    event: EventName = "key_imported" if key.seed is None else "key_made"
    # Only what a killed command began may be in the log already.
    note = events.note_once if key_files.is_begun(session.home, name) else events.note
    with nullcontext() if session.dry_run else key_files.written(session.home, name, key):
        session.update(lambda txn: note(txn, event, name=name, key_id=key.key_id.hex()))
