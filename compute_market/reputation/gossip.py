"""Scores that markets tell each other: signed messages, and what is taken of one.

A message is a part of a file or of what came over the net: canonical JSON lines, the first naming
the market, its key and the instant, one for each provider, and a last one with the signature over
all bytes before. A market tells what it has seen of a provider, its own and other markets' word
together; what a provider says of itself is not told.

An entry is news if its epoch is above the stored one (0 for a provider nobody has heard of), and no
further ahead of market time than clocks may differ. So a message that comes twice, late or in
another order does no harm. What is told is the score as it stood at its epoch, from which on it
fades wherever it is stored: markets forget a provider at the same time, and an entry that comes
after that is old. Otherwise two markets would tell each other for ever what both have forgotten.
"""

from collections.abc import Container, Iterable, Iterator
from typing import Annotated, Final

from msgspec import Meta, Struct

from compute_market import events, metrics
from compute_market.amounts import AMOUNT_MAX
from compute_market.chain import MARKET_ID_BYTES
from compute_market.errors import IntegrityError, RefusedError, UsageError
from compute_market.records import Score, check_id
from compute_market.reputation import reputation
from compute_market.reputation.reputation import SCORE_MAX
from compute_market.signatures import canonical, signatures
from compute_market.signatures.canonical import malformed
from compute_market.signatures.keys import Key, public_key_of
from compute_market.signatures.signatures import GOSSIP, PUBLIC_KEY_BYTES, SIGNATURE_BYTES
from compute_market.store.txn import Txn

METHOD: Final = "net.reputation_gossip"  # of the endpoint
FORMAT: Final = "tb-gossip"
VERSION: Final = 1
ENTRIES_MAX: Final = 10_000
BYTES_MAX: Final = 2**20
AHEAD_MAX_SECS: Final = 300

_LAST = b'{"entries":'
# Of what a message has beside its entries, both keys in hex, there is much less.
_ROOM_BYTES = BYTES_MAX - 16 * 1024

_Number = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]


class _First(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    format: str  # what it is: `tb-gossip`
    version: int  # of the format: 1
    market_id: str  # the market it is of, 32 hex digits
    public_key: str  # the key that signs, 3904 hex digits
    sent_at_ms: _Number  # when it was sent


class _Line(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    provider: str  # whose score it is
    score: Annotated[int, Meta(ge=-AMOUNT_MAX, le=AMOUNT_MAX)]  # as it stood at its epoch
    epoch: _Number  # unix second of its last change


class _Last(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    entries: _Number  # how many lines stand before
    signature: str  # of all bytes before this line, 6618 hex digits


class Told(Struct, frozen=True, gc=False):
    """One score of a message."""

    provider: str
    score: int  # not yet known to lie within −1000 … 1000
    epoch: int


class Message(Struct, frozen=True, gc=False):
    """One message, whose signature may not have been looked at yet."""

    market_id: bytes
    key: Key  # that of its sender
    sent_at_ms: int
    entries: tuple[Told, ...]
    signed: bytes  # what is signed
    signature: bytes


class Applied(Struct, frozen=True, gc=False):
    """What became of the entries of a message."""

    applied: int = 0
    old: int = 0  # ignored: their epoch is not above the stored one, or they are over
    ahead: int = 0  # ignored: their epoch lies in the future
    outside: int = 0  # ignored: no score within −1000 … 1000
    crossed: tuple[str, ...] = ()  # providers whose standing has changed

    @property
    def ignored(self) -> int:
        return self.old + self.ahead + self.outside

    @property
    def text(self) -> str:
        """In one line: `applied 3, ignored 2 (1 not newer, 1 from the future)`."""
        reasons = (
            (self.old, "not newer"),
            (self.ahead, "from the future"),
            (self.outside, "no score"),
        )
        why = ", ".join(f"{number} {reason}" for number, reason in reasons if number)
        return f"applied {self.applied}, ignored {self.ignored}" + (f" ({why})" if why else "")


def total(found: Iterable[Applied]) -> Applied:
    """What became of the entries of several messages."""
    each = list(found)
    return Applied(
        sum(one.applied for one in each),
        sum(one.old for one in each),
        sum(one.ahead for one in each),
        sum(one.outside for one in each),
        tuple(provider for one in each for provider in one.crossed),
    )


def told(txn: Txn, scores: Iterable[tuple[str, Score]]) -> list[Told]:
    """What a market has to tell of these scores, each as it stood at its epoch.

    Many changes within a second make an epoch run ahead of time. It is told as now: others ignore
    what is from the future, and the rest of it is told later.
    A zero is told as long as an entry is kept that is one: who has not heard of it by then has an
    entry that fades by itself.
    """
    since = txn.now - txn.config.reputation_retention_secs
    found = []
    for provider, record in scores:
        score = reputation.clamp(record.score - record.seed)
        is_left = reputation.present_earned(txn, record) != 0
        if is_left or (record.epoch and record.epoch >= since):
            found.append(Told(provider, score, min(record.epoch, txn.now)))
    return found


def messages(
    entries: Iterable[Told], key: Key, market_id: bytes, sent_at_ms: int
) -> Iterator[bytes]:
    """Signed messages that hold the entries in order, as many as that takes; one if there are none.

    `key` is one of one's own.
    """
    lines: list[bytes] = []
    size = count = 0
    for entry in entries:
        line = canonical.line(_Line(entry.provider, entry.score, entry.epoch))
        if len(lines) == ENTRIES_MAX or size + len(line) > _ROOM_BYTES:
            yield _message(lines, key, market_id, sent_at_ms)
            lines, size, count = [], 0, count + 1
        lines.append(line)
        size += len(line)
    if lines or not count:
        yield _message(lines, key, market_id, sent_at_ms)


def split(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The messages that a file holds one behind the other, without looking into them.

    What is too long to be one ends it, and is left for `parse` to refuse.
    """
    parts: list[bytes] = []
    size = 0
    for line in lines:
        parts.append(line)
        size += len(line)
        if line.startswith(_LAST) or size > BYTES_MAX:
            yield b"".join(parts)
            if size > BYTES_MAX:
                return
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def parse(text: bytes, source: str = "", begin: int = 1) -> Message:
    """The one message that a text is, its signature not looked at.

    Raises IntegrityError (`malformed`) for anything else, naming the first wrong `line`; the text
    begins with the line `begin` of `source`, if that has a name.
    """
    if len(text) > BYTES_MAX:
        raise malformed(f"a message of scores has at most {BYTES_MAX} bytes")
    number = 0
    try:
        numbered = enumerate(text.splitlines(keepends=True), 1)
        number, first_line = next(numbered, (1, b""))
        first, key = _first(first_line)
        entries: list[Told] = []
        for number, line in numbered:  # noqa: B007 - it names the line that is wrong
            if line.startswith(_LAST):
                break
            if len(entries) == ENTRIES_MAX:
                raise malformed(f"a message has at most {ENTRIES_MAX} entries")
            entries.append(_entry(line))
        else:
            number += 1
            raise malformed("the message ends before its last line, which has the signature")
        last = canonical.parsed(line, _Last, "the last line of the message")
        if last.entries != len(entries):
            raise malformed(f"{len(entries)} entries are found, {last.entries} are told")
        signature = canonical.unhex(last.signature, SIGNATURE_BYTES, "signature")
        if next(numbered, None) is not None:
            number += 1
            raise malformed("there is more behind the last line of the message")
    except IntegrityError as error:
        raise canonical.at_line(begin + max(number, 1) - 1, error, source) from error
    market_id = bytes.fromhex(first.market_id)
    signed = _signed(market_id, key.key_id, text[: -len(line)])
    return Message(market_id, key, first.sent_at_ms, tuple(entries), signed, signature)


def verify(message: Message, trusted: Container[str]) -> None:
    """Make sure that a message comes from one of the `trusted` keys, ids in hex, as it is.

    Raises RefusedError (`untrusted_key`) for another key, IntegrityError (`bad_signature`).
    """
    key_id = message.key.key_id.hex()
    if key_id not in trusted:
        raise RefusedError(
            f"the scores are signed by key {key_id}, which is not trusted here",
            hint="add it to `trusted` in the section [net] of config.toml, if it is to be",
            reason="untrusted_key",
            key_id=key_id,
        )
    signatures.verify(
        message.key.public_key, message.signature, message.signed, GOSSIP, "the message of scores"
    )


def check_listening(txn: Txn) -> None:
    """Raise RefusedError (`gossip_off`) where scores are neither told nor listened to."""
    if not txn.config.reputation_gossip:
        raise RefusedError(
            "scores are neither told nor listened to here: reputation_gossip is false",
            hint="set reputation_gossip = true in config.toml, if they are to be",
            reason="gossip_off",
        )


def apply(txn: Txn, message: Message) -> Applied:
    """Take what is news in a message that verified; the rest is ignored and counted.

    The caller moves the offers of who `crossed`; see `offers.standing`. Raises RefusedError
    (`gossip_off`).
    """
    check_listening(txn)
    applied = old = ahead = outside = 0
    crossed: list[str] = []
    latest = txn.now + AHEAD_MAX_SECS
    for entry in message.entries:
        before = reputation.entry(txn, entry.provider)
        if not -SCORE_MAX <= entry.score <= SCORE_MAX:
            outside += 1
        elif entry.epoch > latest:
            ahead += 1
        elif (after := _news(txn, entry, before)) is None:
            old += 1
        else:
            applied += 1
            _take(txn, entry.provider, before, after, message)
            if after.barred != (before is not None and before.barred):
                crossed.append(entry.provider)
    found = Applied(applied, old, ahead, outside, tuple(crossed))
    metrics.count(txn, "reputation_gossip_total", "applied", by=found.applied)
    metrics.count(txn, "reputation_gossip_total", "ignored", by=found.ignored)
    return found


def _news(txn: Txn, entry: Told, before: Score | None) -> Score | None:
    if entry.epoch <= (0 if before is None else before.epoch):
        return None
    return reputation.as_told(txn, entry.score, entry.epoch)


def _take(txn: Txn, provider: str, before: Score | None, after: Score, message: Message) -> None:
    was = None if before is None else reputation.present(txn, before)
    reputation.replace_by(txn, provider, before, after)
    now = reputation.present(txn, after)
    if was != now:
        market_id = message.market_id.hex()
        events.note(txn, "score_gossiped", owner=provider, score=now, was=was, market_id=market_id)


def _message(lines: list[bytes], key: Key, market_id: bytes, sent_at_ms: int) -> bytes:
    assert key.seed is not None, "it is the key of somebody else"
    first = _First(FORMAT, VERSION, market_id.hex(), key.public_key.hex(), sent_at_ms)
    text = canonical.line(first) + b"".join(lines)
    signature = signatures.sign(key.seed, _signed(market_id, key.key_id, text), GOSSIP)
    return text + canonical.line(_Last(len(lines), signature.hex()))


def _signed(market_id: bytes, key_id: bytes, text: bytes) -> bytes:
    from blake3 import blake3

    return signatures.framed(market_id, key_id, blake3(text).digest())


def _first(text: bytes) -> tuple[_First, Key]:
    canonical.check_kind(text, FORMAT, VERSION, "it")
    first = canonical.parsed(_whole(text), _First, "the first line of the message")
    canonical.unhex(first.market_id, MARKET_ID_BYTES, "market_id")
    public = canonical.unhex(first.public_key, PUBLIC_KEY_BYTES, "public_key")
    return first, public_key_of(public)


def _entry(text: bytes) -> Told:
    line = canonical.parsed(_whole(text), _Line, "the line of a score")
    try:
        check_id(line.provider, "provider")
    except UsageError as error:
        raise malformed(error.message) from error
    return Told(line.provider, line.score, line.epoch)


def _whole(text: bytes) -> bytes:
    if not text.endswith(b"\n"):
        raise malformed("the message is cut off here" if text else "the message is empty")
    return text
