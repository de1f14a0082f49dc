"""Verbs on sealed bids: commit, export, import, show.

`reveal` has those that open them, `bid_list` the one that lists them.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

from compute_market.bids import bid_files, bids, sealed_jobs, sealing
from compute_market.bids.sealing import BidTx, Sealed, Terms
from compute_market.chain import MARKET_ID_BYTES
from compute_market.errors import ConflictError, MarketError, NotFoundError, UsageError
from compute_market.execution import hashed, known_slices, paths_of
from compute_market.jobs import drafts
from compute_market.records import check_id
from compute_market.requests import JobRequest, build
from compute_market.signatures.keys import Key
from compute_market.store.txn import Txn
from compute_market.workloads.runner import Runner
from compute_market.workloads.workloads import BUILT_IN
from tb_cli.frame import files, key_files, lines, results, secret_files
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.json_lines import JsonLines
from tb_cli.frame.options import BID_ID, BID_IDS, amount, check_given, with_party
from tb_cli.frame.render import emit
from tb_cli.frame.session import Session
from tb_cli.frame.signing import prepare_to_verify
from tb_cli.frame.verbs import argument, examples, option, takes

_OWNER = option(
    "--owner", "The job's buyer, who bears the bond. [the name of the bidder's key here]"
)
# A line of a file without a state is no longer.
_BID_FILE_MAX = 2**16


@examples("tb-cli bid commit job.json --bidder node --owner alice")
@takes(
    argument("file", "JOB.json|-", "The file of the job, or - for stdin."),
    option("--bidder", "The key that signs.", required=True, metavar="NAME|ID", complete="key"),
    _OWNER,
    option("--market", "The id of another market that the bid is for.", metavar="HEX"),
    amount("--height", "The height of that market now."),
    amount("--sequence", "Higher than that of any bid of the key before. [the next]"),
)
def commit(
    session: Session,
    file: str,
    *,
    bidder: str,
    owner: str | None,
    market: str | None,
    height: int | None,
    sequence: int | None,
) -> None:
    """Its slices are hashed, the job is hidden behind a salt and signed. What opens it again is in
    `bids/BID.secret` in the home: whoever loses that cannot reveal the bid, and loses the bond. A
    bid for another market is not taken in here: export it and have it imported there.
    """
    check_given("--owner", owner)
    check_id(bidder, "--bidder")
    away = _other_market(market, height, sequence)
    if away is None:
        session.home.check_market()
    name, key = key_files.own_named(session.home, bidder)
    state = _state(session, file, (owner or name) if away is None else None)
    seal = partial(sealing.blind_sign_cat, os.urandom(sealing.SALT_BYTES), state, key=key)
    if away is not None:
        market_id, at, number = away
        sealed = seal(market_id=market_id, height=at, sequence=number)
        if not session.dry_run:
            secret_files.keep(session.home, sealed)
        document = {"bid_id": sealed.bid_tx.bid_id, "market_id": market, "changed": True}
        emit(session, document, f"sealed bid {sealed.bid_tx.bid_id} for another market")
        return
    document = _commit(session, key, seal, owner or name, sequence)
    text = f"committed to bid {document['bid_id']}: reveal it from height "
    text += f"{document['reveal_from']} on, until height {document['reveal_until']}"
    bond = f", bond {document['bond_ct']} CT" if document["bond_ct"] else ""
    emit(session, document, text + bond)


@examples("tb-cli bid export b-1")
@takes(BID_ID, argument("file", "[FILE|-]", "Where to. [stdout]", required=False, default="-"))
def export(session: Session, bid_id: str, file: str) -> None:
    """It is one line that tells nothing of the job: anybody may see it."""
    check_id(bid_id, "bid id")
    text = bid_files.bid_text(_bid_tx(session, bid_id)).decode()
    if file == "-":
        sys.stdout.write(text)
        return
    results.replace(file, text, beside=session.home.path)
    emit(session, {"bid_id": bid_id, "file": file}, f"wrote bid {bid_id} to {file}")


@examples("tb-cli bid import b-1.bid --owner alice")
@takes(argument("file", "FILE|-", "The file of the bid, or - for stdin."), _OWNER)
def import_(session: Session, file: str, *, owner: str | None) -> None:
    """It may be revealed from two blocks after this one. The same bid again changes nothing."""
    check_given("--owner", owner)
    session.home.check_market()
    prepare_to_verify()
    bid_tx = bid_files.parse_bid(lines.start_of(file, _BID_FILE_MAX), lines.source_of(file))
    bearer = owner or _name_of(session, bid_tx)

    def act(txn: Txn) -> dict[str, Any]:
        taken = bids.take(txn, bid_tx, bearer)
        return bids.document(txn, taken.bid) | {"changed": taken.changed}

    document = session.update(act)
    text = f"imported bid {document['bid_id']}: it may be revealed from height "
    text += f"{document['reveal_from']} on, until height {document['reveal_until']}"
    if not document["changed"]:
        text = f"bid {document['bid_id']} exists, unchanged: {document['state']}"
    emit(session, document, text)


@examples("tb-cli bid show b-1", "tb-cli bid list --state committed -q | tb-cli bid show -")
@takes(BID_IDS)
def show(session: Session, bid_ids: list[str]) -> int:
    """Of several bids each is shown; --json has a list of them then."""
    from tb_cli.frame import several

    def find(txn: Txn, bid_id: str) -> list[dict[str, Any]]:
        return [bids.document(txn, bids.get(txn, bid_id))]

    return several.show(session, bid_ids, "bid id", find)


def _state(session: Session, file: str, owner: str | None) -> bytes:
    """The bytes of a bid for the job in a file, its slices hashed; of this owner if it is known."""
    files.check_readable(file)
    found = list(islice(JsonLines([file]), 2))
    if len(found) != 1:
        raise UsageError(f"{lines.source_of(file)}: a bid is for one job")
    ((directory, document, _),) = found
    if document.error is not None:
        raise document.error
    request = build(with_party(document.fields, "buyer"), JobRequest, document.source)
    if owner is not None:
        bids.check_buyer(owner, request.buyer)
    for path in paths_of(request, directory):
        files.check_text(path, f"{document.source}: the slice")
        sealed_jobs.check_path(path, document.source)
    known = known_slices(request, directory, session.config.slice_root)
    drafts.draft(request, known, now_ms() // 1000, session.config)
    from tb_cli.frame.progress import Progress

    length = sum(entry.length for entry in known)
    silent = request.workload not in BUILT_IN
    with Runner() as runner, Progress(length, color=session.color, silent=silent) as progress:
        inputs = hashed(request.workload, known, runner, now_ms=now_ms(), progress=progress)
    return sealed_jobs.state_of(request, inputs)


def _other_market(
    market: str | None, height: int | None, sequence: int | None
) -> tuple[bytes, int, int] | None:
    """What a bid for another market is bound to, which nobody knows here but who asks."""
    if market is None:
        if height is not None:
            raise UsageError("--height is that of another --market")
        return None
    if height is None or sequence is None:
        raise UsageError("--market needs --height and --sequence: they are not known here")
    try:
        market_id = bytes.fromhex(market)
    except ValueError:
        market_id = b""
    if len(market_id) != MARKET_ID_BYTES or market_id.hex() != market:
        raise UsageError(f"--market: {2 * MARKET_ID_BYTES} lower-case hex digits are expected")
    return market_id, height, sequence


def _commit(
    session: Session, key: Key, seal: Callable[..., Sealed], owner: str, sequence: int | None
) -> dict[str, Any]:
    """Seal a bid for what the market is now, and commit to it, while nobody waits for either."""

    def terms_of(txn: Txn) -> Terms:
        return bids.next_terms(txn, key.public_key, key.key_id, sequence)

    while True:
        terms = session.view(terms_of)
        sealed = seal(market_id=terms.market_id, height=terms.height, sequence=terms.sequence)
        try:
            return _take(session, sealed, owner)
        except ConflictError as error:
            # Another bid of the key was committed to since: whichever came first has the number.
            if sequence is not None or error.reason != "sequence_reused":
                raise


def _take(session: Session, sealed: Sealed, owner: str) -> dict[str, Any]:
    """Commit to a bid whose secret is on the disk before; taken away if there is no bid then."""
    bid_id = sealed.bid_tx.bid_id

    def act(txn: Txn) -> dict[str, Any]:
        taken = bids.take(txn, sealed.bid_tx, owner)
        return bids.document(txn, taken.bid) | {"changed": True}

    try:
        if not session.dry_run:
            secret_files.keep(session.home, sealed)
        return session.update(act)
    except BaseException:
        # It may have been committed all the same: then the secret is all that opens it.
        with suppress(MarketError):
            if session.view(partial(bids.find, bid_id=bid_id)) is None:
                secret_files.remove(session.home, bid_id)
        raise


def _bid_tx(session: Session, bid_id: str) -> BidTx:
    """A bid of this market, or of another one that was sealed here."""
    if session.home.has_market():
        bid = session.view(partial(bids.find, bid_id=bid_id))
        if bid is not None:
            return session.view(partial(bids.bid_tx_of, bid=bid))
    sealed = secret_files.find(session.home, bid_id)
    if sealed is not None:
        return sealed.bid_tx
    return session.view(lambda txn: bids.bid_tx_of(txn, bids.get(txn, bid_id)))


def _name_of(session: Session, bid_tx: BidTx) -> str:
    """What the key of a bidder is called here."""
    key_id = bid_tx.terms.key_id.hex()
    try:
        return key_files.named(session.home, key_id)[0]
    except NotFoundError as error:
        raise UsageError(
            f"no key here has the id {key_id}: whose wallet is to bear the bond?",
            hint="give --owner, or `tb-cli key import-public` the bidder's key",
        ) from error
