"""`tb-cli net reputation sync`: the scores of this market are told to its peers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain as joined
from itertools import islice
from typing import Any, Final

from compute_market import chain
from compute_market.errors import exit_code
from compute_market.reputation import gossip, reputation
from compute_market.reputation.gossip import Told
from compute_market.signatures.keys import Key
from compute_market.store.txn import Txn
from tb_cli.frame import snapshots
from tb_cli.frame.node_key import node_key
from tb_cli.frame.render import emit
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, takes
from tb_cli.network.peers import Peer

# A message of so many has less than 1 MiB, and so has the call that brings it, escapes and all.
_SCORES_A_CALL: Final = 5000
_AT_ONCE_MAX: Final = 16  # peers


@examples("tb-cli net reputation sync -n")
@takes()
def sync(session: Session) -> int:
    """Each address in `peers` of [net] is sent every score that this market has seen earned, signed
    by its key, and takes what is news to it. Peers that do not trust the key refuse them. The
    snapshot `reputation.json` is brought up to date first.
    """
    session.view(gossip.check_listening)
    snapshots.save_if_behind(session)
    peers = [Peer(url, session.config.courier_timeout_secs) for url in session.config.net_peers]
    if not peers:
        emit(session, [], "no peers: `peers` in the section [net] of config.toml names them")
        return 0
    key = node_key(session)
    with ThreadPoolExecutor(min(len(peers), _AT_ONCE_MAX)) as pool:
        try:
            for message, count in _messages(session, key):
                if session.dry_run:
                    for each in peers:
                        each.sent += count
                else:
                    list(pool.map(lambda peer: peer.tell(message, count), peers))  # noqa: B023 - called at once
        finally:
            for each in peers:
                each.close()
    documents = [_document(each, dry_run=session.dry_run) for each in peers]
    emit(session, documents, map(_text, peers))
    return exit_code("pending") if any(each.error for each in peers) else 0


def _messages(session: Session, key: Key) -> Iterator[tuple[bytes, int]]:
    """What there is to tell, signed, with the number of scores in each."""

    def page(txn: Txn, after: bytes | None, size: int) -> tuple[list[Told], bytes | None]:
        found, last = reputation.page(txn, after, size)
        return gossip.told(txn, found), last

    market_id, now_ms = session.view(lambda txn: (chain.market_id(txn), txn.now_ms))
    told = joined.from_iterable(session.pages(page, None))
    first = True
    while (some := list(islice(told, _SCORES_A_CALL))) or first:
        first = False
        (message,) = gossip.messages(some, key, market_id, now_ms)
        yield message, len(some)


def _document(peer: Peer, *, dry_run: bool) -> dict[str, Any]:
    counts = {"sent": peer.sent, "applied": peer.applied, "ignored": peer.ignored}
    if peer.from_the_future:
        counts["from_the_future"] = peer.from_the_future
    error = {} if peer.error is None else {"error": peer.error}
    return {"peer": peer.url, **counts, **error} | ({"dry_run": True} if dry_run else {})


def _text(peer: Peer) -> str:
    text = f"{peer.url}: sent {peer.sent}, applied {peer.applied}, ignored {peer.ignored}"
    if peer.from_the_future:
        text += f" ({peer.from_the_future} from the future, by its clock)"
    return text if peer.error is None else f"{text}; failed: {peer.error}"
