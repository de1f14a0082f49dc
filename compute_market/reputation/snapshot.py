"""Scores in a file of the home: an object of providers, each with what is stored of its score.

    {"acme": {"score": 12, "last_update": 1800000000, "epoch": 1800000003, "seed": 5}}

The score is that of the last change, in unix seconds, from which on it fades. A market that is made
where there is such a file begins with it; any other has the table, of which this is a copy.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Final

from msgspec import Meta, Struct, json

from compute_market import events
from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import IntegrityError, UsageError
from compute_market.records import Score, check_id, replace
from compute_market.reputation import reputation
from compute_market.reputation.reputation import SCORE_MAX
from compute_market.signatures.canonical import decoded, malformed
from compute_market.store.schema import REPUTATION, SCORES_RECENT, SCORES_TOLD, unpack_u64
from compute_market.store.txn import Txn

BYTES_MAX: Final = 256 * 2**20

# A number of `meta`: when the snapshot was written, in milliseconds.
_SAVED = "scores_saved_ms"
_AHEAD_MAX_SECS = 300

_Points = Annotated[int, Meta(ge=-SCORE_MAX, le=SCORE_MAX)]
_Number = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]


class _Entry(Struct, frozen=True, gc=False):
    """What a file says of one provider. A newer release may add fields."""

    score: _Points  # at its last change
    last_update: _Number  # unix second of that change, from which on it fades
    epoch: _Number  # by which another market knows which score is newer
    seed: _Points = 0  # the part of it that was advertised


def is_behind(txn: Txn) -> bool:
    """Whether a score was changed since the snapshot was written."""
    for key, _ in txn.scan_back(SCORES_RECENT):
        # What another market told counts from its epoch, whenever it came.
        return max(unpack_u64(key[:8]), txn.number(SCORES_TOLD)) >= txn.number(_SAVED)
    return False


def note_saved(txn: Txn, at_ms: int) -> None:
    """Remember that a snapshot holds whatever changed before an instant."""
    txn.set_number(_SAVED, at_ms)


def parts(pages: Iterable[list[tuple[str, Score]]]) -> Iterator[bytes]:
    """The file, a part for each page of scores."""
    before = b"{\n"
    for page in pages:
        lines = [
            json.encode(provider) + b": " + json.encode(_entry_of(record))
            for provider, record in page
        ]
        if lines:
            yield before + b",\n".join(lines)
            before = b",\n"
    yield b"{}\n" if before == b"{\n" else b"\n}\n"


def parse(text: bytes, now: int) -> list[tuple[str, Score]]:
    """The scores in a file, as they stood at their last change.

    An epoch goes ahead of time by one for each of many changes within a second; a new market has no
    use for that. Raises IntegrityError: `malformed`, or `future` for one that was changed after
    `now`, in unix seconds.
    """
    found = decoded(text, dict[str, _Entry], "the scores")
    try:
        for provider in found:
            check_id(provider, "a provider")
    except UsageError as error:
        raise malformed(error.message) from error
    for provider, entry in found.items():
        if entry.last_update > now + _AHEAD_MAX_SECS:
            raise IntegrityError(
                f"the score of {provider} is from the future: last_update {entry.last_update}, "
                f"and it is {now}",
                reason="future",
            )
    return [(provider, _record_of(entry, now)) for provider, entry in found.items()]


def restore(txn: Txn, scores: list[tuple[str, Score]]) -> int:
    """Begin with the scores of a file, in a market that has none yet; how many."""
    if txn.size(REPUTATION):
        return 0
    for provider, record in scores:
        record = replace(record, changed_ms=min(record.changed_ms, txn.now_ms))
        barred = reputation.present(txn, record) < 0
        reputation.restore(txn, provider, replace(record, barred=barred))
    if scores:
        events.note(txn, "scores_imported", scores=len(scores))
    return len(scores)


def _entry_of(record: Score) -> _Entry:
    return _Entry(record.score, record.changed_ms // 1000, record.epoch, record.seed)


def _record_of(entry: _Entry, now: int) -> Score:
    return Score(entry.score, entry.seed, min(entry.epoch, now), entry.last_update * 1000)
