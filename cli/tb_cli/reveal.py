"""Verbs that open sealed bids: reveal, import-reveal."""

import sys

from compute_market import chain
from compute_market.bid_records import Bid
from compute_market.bids import bid_files, bids, sealed_jobs, sealing
from compute_market.bids.sealing import Reveal, Sealed
from compute_market.errors import (
    IntegrityError,
    InternalError,
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
from tb_cli.frame import bulk, key_files, lines, results, secret_files
from tb_cli.frame.ids import Ids
from tb_cli.frame.options import ATOMIC, BID_IDS, CHUNK, FAILED_TO, JSONL, are_several
from tb_cli.frame.render import emit, note
from tb_cli.frame.session import Session
from tb_cli.frame.signing import prepare_to_verify
from tb_cli.frame.verbs import argument, examples, option, takes


@examples(
    "tb-cli bid reveal b-1",
    "tb-cli bid list --state committed -q | tb-cli bid reveal -",
    "tb-cli bid reveal b-1 --to b-1.open",
)
@takes(
    BID_IDS,
    option("--to", "Write the reveal for another home instead, - for stdout.", metavar="FILE|-"),
    (CHUNK, ATOMIC, FAILED_TO, JSONL),
)
def reveal(
    session: Session,
    bid_ids: list[str],
    *,
    to: str | None,
    chunk: int | None,
    atomic: bool,
    failed_to: str | None,
    jsonl: bool,
) -> int | None:
    """From then on everybody can read the bid. A bid that was revealed is unchanged; one whose job
    was refused is tried again, within the window. With --atomic a bid whose job is refused undoes
    the others.
    """
    prepare_to_verify()
    if to is not None:
        _write(session, bid_ids, to, many=bool(chunk or atomic or failed_to or jsonl))
        return None
    session.home.check_market()
    session.view(chain.market_id)  # What keeps the market from being read is no bid's fault.
    found = _Reveals(session)
    ids = Ids(bid_ids, "bid id", keep=failed_to is not None)
    return bulk.run(
        session,
        ids,
        found.act,
        id_field="bid_id",
        prepare=found.prepare,
        then=found.forget,
        chunk=chunk,
        atomic=atomic,
        jsonl=jsonl,
        failed_to=failed_to,
        source=ids,
    )


@examples("tb-cli bid import-reveal b-1.open")
@takes(argument("file", "FILE|-", "The file of the reveal, or - for stdin."))
def import_reveal(session: Session, file: str) -> None:
    """The bid must have been imported two blocks before, or earlier. No slice is read."""
    session.home.check_market()
    prepare_to_verify()
    text = lines.start_of(file, bid_files.FILE_BYTES_MAX)
    opened = bid_files.parse_reveal(text, lines.source_of(file))
    barred = _barred(session, opened)
    outcome = session.update(lambda txn: _revealed(txn, opened, barred))
    if outcome.error is not None:
        raise outcome.error
    emit(session, outcome.document, outcome.text)


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


class _Reveals:
    """The reveals of bids: signed and checked before a transaction, submitted in it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._opened: dict[str, tuple[Reveal, Refused | None]] = {}

    def prepare(self, bid_id: str) -> None:
        """Sign a reveal, and see what bars its job. Raises what is wrong with it."""
        sealed = secret_files.find(self._session.home, bid_id)
        if sealed is not None:
            opened = sealing.sign_reveal(sealed.opening, _key_of(self._session, sealed))
            self._opened[bid_id] = opened, _barred(self._session, opened)
            return
        bid = self._session.view(lambda txn: bids.get(txn, bid_id))
        if bid.job_id is None:
            raise _lost(self._session, bid)

    def act(self, txn: Txn, bid_id: str) -> bulk.Outcome:
        if bid_id in self._opened:
            return _revealed(txn, *self._opened[bid_id])
        # It was revealed, and nobody needs its secret any more.
        bid = bids.get(txn, bid_id)
        return _outcome(txn, bids.Revealed(bid, jobs.get(txn, bid.job_id or ""), None, False))

    def forget(self, outcomes: list[bulk.Outcome]) -> list[bulk.Outcome]:
        """A transaction is over: its reveals are not needed any more."""
        self._opened.clear()
        return outcomes


def _write(session: Session, bid_ids: list[str], to: str, *, many: bool) -> None:
    """Write the reveal of one bid for another home."""
    if many or are_several(bid_ids):
        raise UsageError("--to is for one bid, and takes no option of many")
    (bid_id,) = bid_ids
    check_id(bid_id, "bid id")
    sealed = secret_files.find(session.home, bid_id)
    if sealed is None:
        raise _lost(session, session.view(lambda txn: bids.get(txn, bid_id)))
    opened = sealing.sign_reveal(sealed.opening, _key_of(session, sealed))
    _check_now(session, sealed)
    text = bid_files.reveal_text(opened).decode()
    if to == "-" and not session.dry_run:
        sys.stdout.write(text)
        return
    if not session.dry_run:
        results.replace(to, text, beside=session.home.path)
    emit(session, {"bid_id": bid_id, "file": to}, f"wrote the reveal of bid {bid_id} to {to}")


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


def _revealed(txn: Txn, opened: Reveal, barred: Refused | None) -> bulk.Outcome:
    """Submit the job of a bid. Raises what keeps the bid from being revealed."""
    found = bids.reveal(txn, opened, barred)
    if isinstance(found, Refused):
        raise found.error()
    return _outcome(txn, found)


def _outcome(txn: Txn, found: bids.Revealed) -> bulk.Outcome:
    """What is told of a revealed bid; its job may have been refused all the same."""
    bid_id = found.bid.bid_id
    document = bids.document(txn, found.bid) | {"changed": found.changed}
    if found.job is None:
        error = _refused(bid_id, found.refused)
        return bulk.Outcome(bid_id, error.message, document, error)
    document["job"] = documents.job_document(txn, found.job)
    told = f"job {found.job.job_id} {found.job.state}"
    text = f"revealed bid {bid_id}: {told}"
    if not found.changed:
        text = f"bid {bid_id} was revealed, unchanged: {told}"
    return bulk.Outcome(bid_id, text, document)


def _refused(bid_id: str, refused: Refused | None) -> MarketError:
    """The error of a bid that is revealed, and whose job was refused."""
    if refused is None:
        return InternalError(f"bid {bid_id} is revealed without a job")
    message = f"bid {bid_id} is revealed, and its job was refused: {refused.message}"
    if refused.reason == "malformed":
        return IntegrityError(message, hint=refused.hint, reason=refused.reason)
    return replace(refused, message=message).error()


def _barred(session: Session, opened: Reveal) -> Refused | None:
    """What keeps the job of a bid out of this home, whatever its market says.

    Raises what is wrong with its reveal.
    """
    sealing.check_reveal(session.view(lambda txn: bids.to_open(txn, opened)), opened)
    try:
        request, inputs = sealed_jobs.job_of(opened.opening.state)
        resolve(request.workload)
        for entry in inputs:
            check_inside(entry.path, session.config.slice_root)
    except (IntegrityError, RefusedError, UsageError) as error:
        return Refused(error.reason or error.token, error.message, error.hint)
    return None
