"""Verbs on files of receipts: export, import, verify."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import (
    ConflictError,
    MarketError,
    RefusedError,
    UsageError,
    exit_code,
)
from compute_market.import_records import ImportStatus
from compute_market.settlement import imports, receipt_export, receipt_files
from compute_market.settlement.imports import Taken
from compute_market.settlement.receipt_files import LINE_BYTES_MAX, Exported, Section, Verified
from compute_market.signatures import keys
from compute_market.signatures.signatures import KEY_ID_BYTES
from compute_market.store.txn import Txn
from compute_market.text import counted
from tb_cli.frame import key_files
from tb_cli.frame.guard import Terminated, stop_if_lost
from tb_cli.frame.lines import bounded, source_of
from tb_cli.frame.options import digest_of
from tb_cli.frame.render import emit, note, report
from tb_cli.frame.results import Result
from tb_cli.frame.session import Session
from tb_cli.frame.signing import prepare_to_verify
from tb_cli.frame.spool import spooled
from tb_cli.frame.verbs import argument, examples, option, takes

_BECAME: tuple[ImportStatus, ...] = ("applied", "recorded", "failed", "duplicate")
# A file that is taken in part for these is a bulk of which some failed; any other has its own code.
_OF_THE_FILE = (ConflictError, RefusedError)
# Receipts that are read in one transaction: they lie anywhere in the data file, and what was mapped
# to read them is given back after each.
_PAGE = 250

_PUBLIC = ".pub"  # how the file of a public key ends

_Page = tuple[list[Exported], Exported | None]


@examples("tb-cli compute-market receipts export receipts.jsonl --key node")
@takes(
    argument("target", "FILE|-", "The file to write; - for stdout.", required=False, default="-"),
    option(
        "--key",
        "The key of one's own that signs.",
        metavar="NAME|ID",
        required=True,
        complete="key",
    ),
    option(
        "--from",
        "The first receipt. [the first that is not archived]",
        name="from_seq",
        kind="integer",
        metavar="SEQ",
        least=1,
        most=AMOUNT_MAX,
    ),
    option(
        "--to",
        "The last receipt. [the last there is]",
        name="to_seq",
        kind="integer",
        metavar="SEQ",
        least=1,
        most=AMOUNT_MAX,
    ),
)
def export(
    session: Session, target: str, *, key: str, from_seq: int | None, to_seq: int | None
) -> None:
    """They are JSON lines, in order of issue, that `receipts verify` checks with no market at hand.

    The state root in the last line is that of the market now. Receipts issued meanwhile stay out.
    """
    if session.json and target == "-":
        raise UsageError("--json needs a FILE: receipts on stdout are JSON lines by themselves")
    section = session.view(lambda txn: receipt_export.section(txn, from_seq, to_seq))
    signer = key_files.own(session.home, key)
    with ExitStack() as stack:
        result = None
        if target != "-":
            result = stack.enter_context(Result(target, beside=session.home.path))
        put = _to_stdout if result is None else result.add
        put(receipt_files.first_line(section, signer.public_key))
        for page in _pages(session, section):
            put(b"".join(map(receipt_files.receipt_line, page)))
        last = receipt_files.last_line(section, signer)
        if result is None:
            _to_stdout(last)
            return
        result.write(last.decode())
    root = section.state_root.hex()
    document = {
        "path": target,
        "receipts": section.receipts,
        "root": root,
        "from_seq": section.from_seq,
        "to_seq": section.to_seq,
        "to_link": section.to_link.hex(),
        "key": signer.key_id.hex(),
    }
    wrote = f"wrote {counted(section.receipts, 'receipt')}"
    emit(session, document, f"{wrote} to {target}, root {root}")


@examples("tb-cli compute-market receipts verify receipts.jsonl")
@takes(
    argument("source", "FILE|-", "A file of receipts; - for stdin."),
    option(
        "--key",
        "Whose they must be: a key by its id in hex, by its name, or as a file NAME.pub.",
        metavar="KEY",
        complete="key",
    ),
    option("--from-link", "The link that the first must follow.", metavar="HEX"),
)
def verify(session: Session, source: str, *, key: str | None, from_link: str | None) -> None:
    """It says which line is the first that is wrong. Without --key, receipts are those of whoever
    made the file. --from-link is the `to_link` of the file before.
    """
    prepare_to_verify()
    found = receipt_files.verify(
        bounded(source, LINE_BYTES_MAX),
        key_id=None if key is None else _key_id(session, key),
        from_link=None if from_link is None else digest_of("--from-link", from_link),
        source=source_of(source),
    )
    root, key_id = found.state_root.hex(), keys.public_key_of(found.public_key).key_id.hex()
    document = {
        "verified": found.receipts,
        "root": root,
        "from_seq": found.from_seq,
        "to_seq": found.to_seq,
        "key": key_id,
        "market_id": found.market_id.hex(),
        "from_link": found.from_link.hex(),
        "to_link": found.to_link.hex(),
    }
    by = "" if key is None else f", key {key_id}"
    emit(session, document, f"verified {found.receipts} receipts, root {root}{by}")
    if key is None and not session.json:
        note(f"the key is the file's own, {key_id}: --key says whose receipts they must be")


@examples("tb-cli compute-market receipts import receipts.jsonl -n")
@takes(
    argument("source", "FILE|-", "A file of receipts of another market; - for stdin."),
    option(
        "--from-link",
        "Let the first file of a market begin behind this link.",
        metavar="HEX",
    ),
)
def import_(session: Session, source: str, *, from_link: str | None) -> int:
    """They are taken in order, each once, if their key is in `trusted` of [net] in config.toml. In
    the mode real the buyer's wallet pays the provider's. Else they are recorded, and paid when they
    are imported again in real. At the first that cannot be paid the mode falls to dry_run.
    """
    link = None if from_link is None else digest_of("--from-link", from_link)
    prepare_to_verify()
    given, name = bounded(source, LINE_BYTES_MAX), source_of(source)
    first = list(islice(given, 1))
    if not _may_be_trusted(session, first):
        # Nothing of it is kept, so that nobody unknown fills the disk.
        file = receipt_files.verify(chain(first, given), from_link=link, source=name)
        return _tell(session, file, session.view(lambda txn: imports.take(txn, file, ())))
    with spooled(chain(first, given)) as lines:
        file = receipt_files.verify(lines, from_link=link, source=name)
        entries = receipt_files.entries(lines, name)
        if session.dry_run:
            # What is rolled back could not be built upon: it is one transaction.
            act = partial(imports.take, file=file, entries=entries, from_link=link, archives=True)
            taken = session.update(act)
        else:
            taken = _take(session, file, entries, link)
    return _tell(session, file, taken)


def _may_be_trusted(session: Session, first: list[bytes]) -> bool:
    """Whether the first line names a key that is trusted. It may be wrong in all else."""
    key_id = receipt_files.claimed_key(b"".join(first))
    return key_id is not None and key_id.hex() in session.config.net_trusted


def _take(
    session: Session, file: Verified, entries: Iterable[Exported], from_link: bytes | None
) -> Taken:
    """Take all, and say how far it came if a signal ends it."""
    count = 0

    def update(act: Callable[[Txn], Taken]) -> Taken:
        """One transaction of many: what was mapped of the store for it is given back."""
        nonlocal count
        taken = session.update(act)
        count += taken.became.total()
        session.let_go()
        return taken

    try:
        return imports.take_all(update, file, entries, from_link=from_link)
    except (KeyboardInterrupt, Terminated):
        note(f"interrupted after {count} of {file.receipts} receipts; run it again")
        raise


def _tell(session: Session, file: Verified, taken: Taken) -> int:
    """Print what became of the receipts of a file; the exit code."""
    became = {"duplicates" if name == "duplicate" else name: taken.became[name] for name in _BECAME}
    document = {
        "market_id": file.market_id.hex(),
        "from_seq": file.from_seq,
        "to_seq": file.to_seq,
        "imported": taken.imported,
        **became,
        "changed": taken.became.total() > taken.became["duplicate"],
    }
    if taken.unpaid:
        document["held_unpaid"] = dict(taken.unpaid)
    counted = ", ".join(f"{count} {name}" for name, count in became.items())
    of = f"{file.receipts} receipts of market {file.market_id.hex()}"
    emit(session, document, f"imported {taken.imported} of {of}: {counted}")
    for market, count in () if session.json else taken.unpaid.items():
        noun = "duplicate is" if count == 1 else "duplicates are"
        note(f"{count} {noun} held by market {market}, not paid")
    for error in _errors(taken, as_one=session.json):
        report(error, session.json)
    if taken.stop is not None and not isinstance(taken.stop, _OF_THE_FILE):
        return taken.stop.exit_code
    if taken.failure is not None and file.receipts == 1:
        return taken.failure.exit_code
    return 0 if taken.failure is taken.stop is None else exit_code("partial")


def _errors(taken: Taken, *, as_one: bool) -> list[MarketError]:
    """What went wrong, the payment first; `as_one`, it has why the rest was not taken with it."""
    errors = [error for error in (taken.failure, taken.stop) if error is not None]
    if as_one and len(errors) > 1:
        first, stop = errors
        details = {**first.details, "stop": stop.document()}
        errors = [type(first)(first.message, hint=first.hint, reason=first.reason, **details)]
    return errors


def _pages(session: Session, section: Section) -> Iterator[list[Exported]]:
    def fetch(txn: Txn, after: Exported | None, size: int) -> _Page:
        limit = min(size, _PAGE)
        found = receipt_export.page(txn, section, after, limit)
        return found, found[-1] if len(found) == limit else None

    for page in session.pages(fetch, None):
        yield page
        session.let_go()


def _to_stdout(lines: bytes) -> None:
    sys.stdout.write(lines.decode())
    stop_if_lost()


def _key_id(session: Session, given: str) -> bytes:
    """The id of the key that --key means: an id, else the name of a key, else a file.

    No file that lies around stands in for an id or a name: a path has a `/` or ends with `.pub`.
    """
    if len(given) == 2 * KEY_ID_BYTES:
        return digest_of("--key", given)
    is_path = "/" in given or (given.endswith(_PUBLIC) and not _is_name(session, given))
    if is_path:
        # Two lines are no key; no more of them need be read to see that.
        content = b"".join(islice(bounded(given, LINE_BYTES_MAX), 2))
        return keys.parse_public(content, given).key_id
    return key_files.public(session.home, given).key_id


def _is_name(session: Session, given: str) -> bool:
    try:
        home = session.home
    except UsageError:
        return False  # Where no home is known, no key has a name.
    return given in key_files.names(home)
