"""Verbs on files of scores: export, import."""

import sys
from collections.abc import Iterator
from functools import partial
from itertools import chain

from compute_market import chain as heights
from compute_market.errors import MarketError, UsageError, exit_code
from compute_market.offers import standing
from compute_market.reputation import gossip, reputation
from compute_market.reputation.gossip import Applied, Message, Told
from compute_market.signatures.canonical import malformed
from compute_market.store.txn import Txn
from compute_market.text import counted
from tb_cli.frame import key_files, snapshots
from tb_cli.frame.guard import Terminated, stop_if_lost
from tb_cli.frame.lines import bounded, source_of
from tb_cli.frame.render import emit, note, report
from tb_cli.frame.results import Result, check_free
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, takes

_LINE_BYTES_MAX = 64 * 1024


@examples("tb-cli net reputation export")
@takes(
    argument(
        "target",
        "[FILE|-]",
        "Where to, for other markets; - for stdout. [reputation.json in the home, for this one]",
        required=False,
    )
)
def export(session: Session, target: str | None) -> None:
    """Signed messages of what this market has seen of providers, or the snapshot of its scores with
    which a new market in this home would begin.
    """
    if target is None:
        count = snapshots.save(session)
        path = str(session.home.reputation)
        emit(
            session,
            {"path": path, "scores": count},
            f"wrote {counted(count, 'score')} to {path}",
        )
        return
    if session.json and target == "-":
        raise UsageError("--json needs a FILE: messages on stdout are JSON lines by themselves")
    session.view(gossip.check_listening)
    from tb_cli.frame.node_key import node_key

    if target != "-":
        check_free(target, session.home.path)
    has_key = not session.dry_run or key_files.find(session.home, session.config.net_key)
    key = node_key(session)
    market_id, now_ms = session.view(lambda txn: (heights.market_id(txn), txn.now_ms))
    found = _Counted(chain.from_iterable(session.pages(_told, None)))
    messages = gossip.messages(found, key, market_id, now_ms)
    number = 0
    if session.dry_run:
        number = sum(1 for _ in messages)
    elif target == "-":
        for text in messages:
            sys.stdout.write(text.decode())
            stop_if_lost()
        return
    else:
        with Result(target, beside=session.home.path) as result:
            for text in messages:
                result.add(text)
                number += 1
            result.write("")
    document = {
        "path": target,
        "scores": found.count,
        "messages": number,
        "key": key.key_id.hex() if has_key else None,
    }
    emit(session, document, f"wrote {counted(found.count, 'score')} to {target}")


@examples("tb-cli net reputation import scores.jsonl")
@takes(argument("source", "FILE|-", "A file of scores of another market; - for stdin."))
def import_(session: Session, source: str) -> int:
    """A score that is news replaces the one here, if the key of the file is in `trusted` of [net]
    in config.toml. The same file again changes nothing.
    """
    from tb_cli.frame.signing import prepare_to_verify

    session.view(gossip.check_listening)
    prepare_to_verify()
    found: list[Applied] = []
    failure: MarketError | None = None
    begin = 1  # the line in which the next message does
    try:
        for text in gossip.split(bounded(source, _LINE_BYTES_MAX)):
            message = gossip.parse(text, source_of(source), begin)
            found.append(_take(session, message))
            begin += text.count(b"\n")
    except MarketError as error:
        failure = error
    except (KeyboardInterrupt, Terminated):
        note(f"interrupted after {len(found)} messages; run it again")
        raise
    if not found:
        raise failure or malformed(f"{source_of(source)} is empty")
    whole = gossip.total(found)
    document = {
        "messages": len(found),
        "applied": whole.applied,
        "ignored": whole.ignored,
        "not_newer": whole.old,
        "from_the_future": whole.ahead,
        "no_score": whole.outside,
        "changed": whole.applied > 0,
    }
    emit(session, document, whole.text)
    if failure is None:
        return 0
    note(f"message {len(found) + 1} of {source_of(source)} was not taken, nor any behind it")
    report(failure, session.json)
    return exit_code("partial")


def _take(session: Session, message: Message) -> Applied:
    gossip.verify(message, session.config.net_trusted)
    return session.update(partial(standing.take_gossip, message=message))


def _told(txn: Txn, after: bytes | None, size: int) -> tuple[list[Told], bytes | None]:
    scores, last = reputation.page(txn, after, size)
    return gossip.told(txn, scores), last


class _Counted:
    """Entries, and how many have been taken of them."""

    def __init__(self, entries: Iterator[Told]) -> None:
        self._entries = entries
        self.count = 0

    def __iter__(self) -> Iterator[Told]:
        for entry in self._entries:
            self.count += 1
            yield entry
