"""Verbs on files of receipts: export, verify."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import UsageError
from compute_market.settlement import receipt_export, receipt_files
from compute_market.settlement.receipt_files import LINE_BYTES_MAX, Exported, Section
from compute_market.signatures import keys
from compute_market.signatures.signatures import KEY_ID_BYTES
from compute_market.store.txn import Txn
from tb_cli.frame import key_files
from tb_cli.frame.guard import stop_if_lost
from tb_cli.frame.lines import bounded
from tb_cli.frame.options import digest_of
from tb_cli.frame.render import emit, note
from tb_cli.frame.results import Result
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, option, takes

_Page = tuple[list[Exported], Exported | None]


@takes(
    argument("target", "FILE|-", "The file to write; - for stdout.", required=False, default="-"),
    option("--key", "The key of one's own that signs.", metavar="NAME", required=True),
    option(
        "--from",
        "The first receipt. [1]",
        name="from_seq",
        kind="integer",
        metavar="SEQ",
        default=1,
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
def export(session: Session, target: str, *, key: str, from_seq: int, to_seq: int | None) -> None:
    """They are JSON lines, in order of issue, that `receipts verify` checks with no market at hand.

    The state root in the last line is that of the market now. Receipts issued meanwhile stay out.
    """
    if session.json and target == "-":
        raise UsageError("--json needs a FILE: receipts on stdout are JSON lines by themselves")
    section = session.view(lambda txn: receipt_export.section(txn, from_seq, to_seq))
    signer = key_files.own(session.home, key)
    with ExitStack() as stack:
        result = None if target == "-" else stack.enter_context(Result(target))
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
    emit(session, document, f"wrote {section.receipts} receipts to {target}, root {root}")


@takes(
    argument("source", "FILE|-", "A file of receipts; - for stdin."),
    option(
        "--key",
        "Whose they must be: a file with a public key, a key by its name, or its id in hex.",
        metavar="KEY",
    ),
    option("--from-link", "The link that the first must follow.", metavar="HEX"),
)
def verify(session: Session, source: str, *, key: str | None, from_link: str | None) -> None:
    """It says which line is the first that is wrong. Without --key, receipts are those of whoever
    made the file. --from-link is the `to_link` of the file before.
    """
    found = receipt_files.verify(
        bounded(source, LINE_BYTES_MAX),
        key_id=None if key is None else _key_id(session, key),
        from_link=None if from_link is None else digest_of("--from-link", from_link),
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
    emit(session, document, f"verified {found.receipts} receipts, root {root}")
    if key is None and not session.json:
        note(f"the key is the file's own, {key_id}: --key says whose receipts they must be")


def _pages(session: Session, section: Section) -> Iterator[list[Exported]]:
    def fetch(txn: Txn, after: Exported | None, size: int) -> _Page:
        found = receipt_export.page(txn, section, after, size)
        return found, found[-1] if len(found) == size else None

    return session.pages(fetch, None)


def _to_stdout(lines: bytes) -> None:
    sys.stdout.write(lines.decode())
    stop_if_lost()


def _key_id(session: Session, given: str) -> bytes:
    """The id of the key that --key means."""
    if len(given) == 2 * KEY_ID_BYTES and not os.path.exists(given):
        return digest_of("--key", given)
    if os.path.exists(given):
        # Two lines are no key; no more of them need be read to see that.
        content = b"".join(islice(bounded(given, LINE_BYTES_MAX), 2))
        return keys.parse_public(content, given).key_id
    return key_files.public(session.home, given).key_id
