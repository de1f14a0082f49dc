"""Verbs on the files of the market: init, backup, restore, info, stats; on its state: root.

`check` is an audit.
"""

import fcntl
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from compute_market import chain, events, instance
from compute_market import home as names
from compute_market.archive import archives, archiving
from compute_market.engine import begin_instance, open_store
from compute_market.errors import (
    BusyError,
    IntegrityError,
    UsageError,
)
from compute_market.home import failing
from compute_market.jobs import jobs, listed
from compute_market.records import Job
from compute_market.settlement import state_root
from compute_market.store.creation import sync
from compute_market.store.schema import TABLES
from compute_market.store.translation import translated
from compute_market.store.txn import Txn
from compute_market.store.usage import measured
from tb_cli.frame import copies, files, last_backup, lines
from tb_cli.frame.clocks import now_ms, sleep
from tb_cli.frame.examination import examine
from tb_cli.frame.home import Home
from tb_cli.frame.listing.options import LISTED, columns_of
from tb_cli.frame.render import emit, fields
from tb_cli.frame.results import check_free
from tb_cli.frame.session import Session
from tb_cli.frame.times import with_local
from tb_cli.frame.verbs import argument, examples, takes

if TYPE_CHECKING:
    from tb_cli.frame.listing.columns import Noun

_LEFTOVER = ".restore-"  # what the name of a home begins with that is being restored
_PPM = 1_000_000


@examples("tb-cli state init")
def init(session: Session) -> None:
    """Commands that bring something new, such as a deposit, do so on first use."""
    changed = session.open()
    session.update(lambda txn: None)
    text = f"created {session.home}" if changed else f"{session.home} exists, unchanged"
    emit(session, {"home": str(session.home), "changed": changed}, text)


@examples("tb-cli state backup /backup/2026-11-28")
@takes(argument("target", "DIR|-", "A directory that is not there, or - for a tar on stdout."))
def backup(session: Session, target: str) -> None:
    """It is a compacted copy of one moment, while others go on working, with settings, log, price
    board, and the bundles that wait to be forwarded; keys and the secrets of bids are not in it.

    The copy is a home of its own: `tb-cli --home DIR state check`. It gets its name when all of it
    is on the disk; one that was killed leaves nothing of that name.
    """
    if target == "-":
        _to_stdout(session)
        return
    files.check_text(target, "the directory")
    if os.path.lexists(target):
        raise UsageError(f"{target}: file exists")
    session.open()  # Where there is no market nothing is made.
    parent, name = _place_of(target, session.home)
    check_free(target, session.home.path)
    if session.dry_run:
        parent = tempfile.gettempdir()
    with copies.making(parent, f".{name}.") as copy:
        copies.fill(copy, session)
        size = copies.size_of(copy)
        if not session.dry_run:
            copies.sync_all(copy)
            with failing(target):
                os.rename(copy.path, target)
                sync(parent)
            last_backup.remember(session.home, target, size)
    check = f"tb-cli --home {shlex.quote(target)} state check"
    text = [f"wrote {size} bytes to {target}", f"it is not checked: `{check}` does that"]
    emit(session, {"path": target, "bytes": size}, text)


def _place_of(target: str, home: Home) -> tuple[str, str]:
    """The directory in which a backup of a home is made, and its name.

    Raises UsageError where there is no such directory: a disk is not mounted. And for one in the
    home, with which it would be lost.
    """
    directory, name = os.path.split(target.rstrip("/"))
    directory = directory or "."
    if home.holds(directory):
        raise UsageError(
            f"{target} is in the home {home}, and would be lost with it",
            hint="choose a directory outside of the home, on another disk",
        )
    if not os.path.lexists(directory):
        raise UsageError(
            f"{target}: there is no directory {directory}",
            hint=f"mkdir -p {shlex.quote(directory)}",
        )
    if not os.path.isdir(directory):
        raise UsageError(f"{target}: {directory} is not a directory")
    return os.path.realpath(directory), name


def _to_stdout(session: Session) -> None:
    stream = copies.standard_output()
    with copies.making(tempfile.gettempdir(), "tb-backup-") as copy:
        copies.fill(copy, session)
        size = copies.size_of(copy)
        if session.dry_run:
            emit(session, {"path": "-", "bytes": size}, f"wrote {size} bytes to stdout")
        else:
            copies.pack(copy, stream)
            last_backup.remember(session.home, "-", size)


@examples("tb-cli state restore /backup/2026-11-28 --home restored")
@takes(argument("source", "DIR|-", "A backup, or - for a tar on stdin."))
def restore(session: Session, source: str) -> None:
    """The backup is checked first, and only a sound one is restored.

    It becomes a market of its own, with a new instance id. Its time is held: nothing that time
    alone causes happens until you say so with `tb-cli compute-market clock accept`, or make up for
    the outage with `tb-cli compute-market sla extend`.
    """
    stream = copies.standard_input() if source == "-" else None
    if stream is None:
        copies.check_directory(files.check_text(source, "the directory"))
        _check_sound(session, source)
    with _empty_home(session) as directory, copies.making(directory, _LEFTOVER) as copy:
        if stream is None:
            with _other(session, source) as other:
                copies.fill(copy, other)
        else:
            copies.unpack(stream, copy)
            _check_sound(session, copy.path)
            copies.warn_of_bundles(copy, session)
        instance_id = _begin_instance(session, copy)
        size = copies.size_of(copy)
        if not session.dry_run:
            copies.sync_all(copy)
            copies.move_in(copy, session.home)
    document = {"home": str(session.home), "bytes": size, "instance_id": instance_id.hex()}
    emit(
        session,
        document,
        [
            f"restored {session.home} from {lines.source_of(source)}",
            "its time is held: `tb-cli compute-market clock accept` lets it go on",
        ],
    )


@contextmanager
def _other(session: Session, path: str) -> Iterator[Session]:
    """A session on another home."""
    settings = {"home": path, "lock_timeout": session.config.lock_timeout_secs}
    with Session.begin(settings, "needed") as other:
        yield other


def _check_sound(session: Session, path: str) -> None:
    """Raises IntegrityError unless pages and laws of the market in a directory are sound.

    Bundles that are not are no reason to do without the rest.
    """
    with _other(session, path) as other:
        found = examine(other, pages=True, spool=False)
    if not found.is_sound:
        raise IntegrityError(
            f"the backup is damaged: {[*found.problems, *found.violations][0]}",
            hint="choose another backup; `state check` tells all that is wrong with it",
        )


@contextmanager
def _empty_home(session: Session) -> Iterator[str]:
    """Where the home is made: in it, with nobody else at it; a dry run in a directory apart.

    Raises UsageError for a home that has anything in it but what a killed restore left.
    """
    home = session.home
    home.check()
    is_new = not os.path.exists(home.path)
    if not is_new:
        _check_empty(home)
    if session.dry_run:
        yield tempfile.gettempdir()
        return
    home.make()
    descriptor = os.open(home.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(descriptor, home)
        for name in os.listdir(home.path):
            if name.startswith(_LEFTOVER):
                shutil.rmtree(os.path.join(home.path, name), ignore_errors=True)
        yield home.path
    finally:
        os.close(descriptor)
        with translated(home.path):
            if is_new and not os.listdir(home.path):
                os.rmdir(home.path)


def _lock(descriptor: int, home: Home) -> None:
    with translated(home.path):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another process is restoring {home}", hint="try again") from None


def _check_empty(home: Home) -> None:
    # They are compared with those of the backup; the snapshot is a copy of what that holds.
    left = {*copies.PARTS[:-1], names.SPOOL, names.STATE, names.REPUTATION}
    for name in sorted(os.listdir(home.path)):
        if name not in left and not name.startswith(_LEFTOVER):
            raise copies.not_empty(home, name)


def _begin_instance(session: Session, copy: Home) -> bytes:
    """Make a copy a market of its own, in which time is held."""
    instance_id = os.urandom(instance.ID_BYTES)
    store = open_store(copy.path, session.config, sleep=sleep)
    try:
        begin_instance(store, instance_id, "restored from a backup", now_ms=now_ms())
    finally:
        store.close()
    copies.write_log(copy, session)
    return instance_id


@examples("tb-cli state info")
def info(session: Session) -> None:
    """Ids, sizes, the oldest jobs, archives, the last command and the last backup.

    Each archive is told by its path, and once more if there is no file there, or one that has been
    cut. It reads every live job, and no ended one.
    """
    about = session.view(_about)
    live, ended = about["live"], about["ended"]
    usage = measured(session.market.store)
    backup = last_backup.last(session.home)
    used_ppm = usage.pages * usage.page_bytes * _PPM // usage.map_bytes
    document = {
        "home": str(session.home),
        **{name: about[name] for name in ("market_id", "instance_id", "time_held")},
        "schema": usage.schema,
        "bytes": usage.bytes,
        "pages": usage.pages,
        "free_pages": usage.free_pages,
        "map_bytes": usage.map_bytes,
        "map_used_ppm": used_ppm,
        "oldest_live": live and {"job_id": live.job_id, "submitted_at": live.submitted_at},
        "oldest_ended": ended and {"job_id": ended[1], "ended_at": ended[0]},
        "archives": about["archives"],
        "archives_unfinished": about["archives_unfinished"],
        "archives_gone": about["archives_gone"],
        "archives_short": about["archives_short"],
        "last_change_ms": about["last_change_ms"],
        "last_command": about["last_command"],
        "last_backup": backup and asdict(backup),
    }
    emit(session, document, fields(with_local(document)))


def _about(txn: Txn) -> dict[str, Any]:
    last = next(events.back(txn), None)
    of = archiving.of_use([archive for _, archive in archives.listed(txn)])
    gone, short = archiving.lost(of)
    return {
        "live": _oldest_live(txn),
        "ended": listed.first_ended(txn),
        "archives": [each.path for each in of],
        "archives_unfinished": [each.path for each in of if each.closed_ms is None],
        "archives_gone": gone,
        "archives_short": short,
        "market_id": chain.market_id(txn).hex(),
        "instance_id": instance.id_of(txn),
        "time_held": instance.held_because(txn),
        "last_change_ms": txn.number("last_run_ms") or None,
        "last_command": last
        and {
            "at_ms": last.at_ms,
            "user": last.asked.user,
            "host": last.asked.host,
            "pid": last.asked.pid,
            "command": last.asked.command,
        },
    }


def _oldest_live(txn: Txn) -> Job | None:
    """The live job that was submitted first; it reads every live job."""
    live = (jobs.named(txn, job_id.encode()) for job_id in jobs.live_ids(txn))
    return min(live, key=lambda job: job.seq, default=None)


def _tables(given: Mapping[str, Any]) -> "Noun":
    from tb_cli.frame.listing.columns import Column, Noun

    columns = (Column("table"), Column("entries", kind="number"))
    return Noun("tables", "table", columns, shown=("table", "entries"), ranked=True)


@examples("tb-cli state stats")
@takes(LISTED)
@columns_of(_tables)
def stats(session: Session, *, listing: dict[str, Any]) -> None:
    from tb_cli.frame.listing import lists
    from tb_cli.frame.listing.reading import Reading

    def sizes(txn: Txn, after: None, size: int) -> tuple[list[dict[str, Any]], None]:
        return [{"table": table.name, "entries": txn.size(table)} for table in TABLES], None

    lists.show(session, _tables({}), listing, Reading(sizes))


@examples("tb-cli state root")
def root(session: Session) -> None:
    """Two states with the same root have the same money in the same hands. It reads every account.

    Any movement of money, change of the mode and receipt gives another; time alone does not.
    """
    document = session.view(state_root.document)
    emit(session, document, fields(document))
