"""Verbs that open sealed bids: reveal, import-reveal."""

import sys
from typing import Any

from compute_market import chain
from compute_market.bid_records import Bid
from compute_market.bids import bid_files, bids, sealed_jobs, sealing
from compute_market.bids.sealing import Reveal, Sealed
from compute_market.errors import (
    IntegrityError,
    MarketError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from compute_market.hashing.files import check_inside
from compute_market.jobs import documents, jobs
from compute_market.records import Refused, check_id, replace
from compute_market.signatures.keys import Key
from compute_market.store.txn import Txn
from compute_market.workloads.workloads import resolve
from tb_cli.frame import key_files, lines, results, secret_files
from tb_cli.frame.options import BID_ID
from tb_cli.frame.render import emit, note
from tb_cli.frame.session import Session
from tb_cli.frame.signing import prepare_to_verify
from tb_cli.frame.verbs import argument, examples, option, takes


@examples("tb-cli bid reveal b-1")
@takes(
    BID_ID,
    option("--to", "Write the reveal for another home instead, - for stdout.", metavar="FILE|-"),
)
def reveal(session: Session, bid_id: str, *, to: str | None) -> None:
    """From then on everybody can read the bid. A bid that was revealed is unchanged; one whose job
    was refused is tried again, within the window.
    """
    check_id(bid_id, "bid id")
    prepare_to_verify()
    sealed = secret_files.find(session.home, bid_id)
    if sealed is None:
        _without_secret(session, bid_id, to)
        return
    opened = sealing.sign_reveal(sealed.opening, _key_of(session, sealed))
    if to is None:
        _reveal(session, opened)
        return
    _check_now(session, sealed)
    text = bid_files.reveal_text(opened).decode()
    if to == "-" and not session.dry_run:
        sys.stdout.write(text)
        return
    if not session.dry_run:
        results.replace(to, text)
    emit(session, {"bid_id": bid_id, "file": to}, f"wrote the reveal of bid {bid_id} to {to}")


@examples("tb-cli bid import-reveal b-1.open")
@takes(argument("file", "FILE|-", "The file of the reveal, or - for stdin."))
def import_reveal(session: Session, file: str) -> None:
    """The bid must have been imported two blocks before, or earlier. No slice is read."""
    session.home.check_market()
    prepare_to_verify()
    text = lines.start_of(file, bid_files.FILE_BYTES_MAX)
    _reveal(session, bid_files.parse_reveal(text, lines.source_of(file)))


def _key_of(session: Session, sealed: Sealed) -> Key:
    key = key_files.public(session.home, sealed.opening.terms.key_id.hex())
    if key.seed is None:
        raise NotFoundError(f"the key that sealed bid {sealed.bid_tx.bid_id} is not in this home")
    return key


def _check_now(session: Session, sealed: Sealed) -> None:
    """Make sure that a bid may be revealed, or warn that it is not known."""
    bid_id, market_id = sealed.bid_tx.bid_id, sealed.opening.terms.market_id
    if session.home.has_market() and session.view(chain.market_id) == market_id:
        late = session.view(lambda txn: _late(txn, bids.get(txn, bid_id)))
        if late is not None:
            raise late.error()
        return
    note(
        f"warning: bid {bid_id} is for market {market_id.hex()}, and whether it may be revealed "
        f"there is not known here: it must have been imported {bids.REVEAL_AFTER} blocks before"
    )


def _late(txn: Txn, bid: Bid) -> Refused | None:
    """Whether it is too late to show others what is in a bid; once revealed, it never is."""
    return None if bid.state == "revealed" else bids.check_window(txn, bid)


def _without_secret(session: Session, bid_id: str, to: str | None) -> None:
    """Answer for a bid that was revealed, of which nobody needs the secret any more."""

    def act(txn: Txn) -> tuple[bids.Revealed, dict[str, Any]] | Bid:
        bid = bids.get(txn, bid_id)
        if bid.job_id is None or to is not None:
            return bid
        return _answer(txn, bids.Revealed(bid, jobs.get(txn, bid.job_id), None, False))

    found = session.view(act)
    if isinstance(found, Bid):
        raise _lost(session, found)
    _tell(session, *found)


def _lost(session: Session, bid: Bid) -> MarketError:
    """The error of a bid whose secret is not in this home."""
    bid_id = bid.bid_id
    path = secret_files.path_of(session.home, bid_id)
    if bid.job_id is not None:
        return NotFoundError(
            f"bid {bid_id} was revealed as job {bid.job_id}, and {path} is not there any more"
        )
    late = session.view(lambda txn: bids.lateness(txn, bid))
    if late is not None:
        return late.error()
    cost = f"it expires after height {bid.reveal_until}"
    if bid.state == "revealed":
        cost = f"it was revealed, its job was refused ({bid.refused}), and is not tried again"
    elif bid.bond_ct:
        cost += f", which costs {bid.owner} its bond of {bid.bond_ct} CT"
    return NotFoundError(
        f"bid {bid_id} cannot be revealed here: {path} is not there; {cost}",
        hint="put it back from a copy, or have the bidder send its reveal: "
        "`tb-cli bid import-reveal FILE`",
    )


def _reveal(session: Session, opened: Reveal) -> None:
    """Submit the job of a bid."""
    sealing.check_reveal(session.view(lambda txn: bids.to_open(txn, opened)), opened)
    barred = _barred(session, opened)

    def act(txn: Txn) -> tuple[bids.Revealed, dict[str, Any]] | Refused:
        found = bids.reveal(txn, opened, barred)
        return found if isinstance(found, Refused) else _answer(txn, found)

    found = session.update(act)
    if isinstance(found, Refused):
        raise found.error()
    _tell(session, *found)


def _answer(txn: Txn, found: bids.Revealed) -> tuple[bids.Revealed, dict[str, Any]]:
    """What is told of a revealed bid, and its document."""
    document = bids.document(txn, found.bid) | {"changed": found.changed}
    if found.job is not None:
        document["job"] = documents.job_document(txn, found.job)
    return found, document


def _tell(session: Session, found: bids.Revealed, document: dict[str, Any]) -> None:
    bid_id = found.bid.bid_id
    if found.refused is not None:
        refused = found.refused
        message = f"bid {bid_id} is revealed, and its job was refused: {refused.message}"
        if refused.reason == "malformed":
            raise IntegrityError(message, hint=refused.hint, reason=refused.reason)
        raise replace(refused, message=message).error()
    job = document["job"]
    text = f"revealed bid {bid_id}: job {job['job_id']} {job['state']}"
    if not found.changed:
        text = f"bid {bid_id} was revealed, unchanged: job {job['job_id']} {job['state']}"
    emit(session, document, text)


def _barred(session: Session, opened: Reveal) -> Refused | None:
    """What keeps the job of a bid out of this home, whatever its market says."""
    try:
        request, inputs = sealed_jobs.job_of(opened.opening.state)
        resolve(request.workload)
        for entry in inputs:
            check_inside(entry.path, session.config.slice_root)
    except (IntegrityError, RefusedError, UsageError) as error:
        return Refused(error.reason or error.token, error.message, error.hint)
    return None
