"""Where bundles are forwarded to: a directory, another market by HTTP, or a program."""

from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Final, Literal, Protocol

from blake3 import blake3
from msgspec import Struct

from compute_market.courier import envelope
from compute_market.courier_records import BundleReceipt
from compute_market.errors import IntegrityError, MarketError
from compute_market.signatures.keys import Key

PIECE_BYTES: Final = 2**20
PATH: Final = f"/{envelope.METHOD}"  # of a URL that has none

# Opens the bundle of a receipt, to be read to its end.
Open = Callable[[BundleReceipt], BinaryIO]


class Answer(Struct, frozen=True, gc=False):
    """What a destination made of a bundle."""

    outcome: Literal["acknowledged", "failed", "refused"]
    error: str | None = None
    is_final: bool = False  # it would fail again


class Sender(Struct, frozen=True, gc=False):
    """Who sends: what a destination needs to know beside the bundles."""

    home: str  # where a relative directory begins
    market_id: bytes
    key: Callable[[], Key]  # that signs; it may have to be made
    trusted: tuple[str, ...]  # ids of keys whose acknowledgements are believed
    timeout_s: int
    open: Open


class Destination(Protocol):
    """A place that takes bundles. `send` may be called by several threads at once."""

    @property
    def batch(self) -> int:
        """How many bundles it takes at once, at most."""

    def send(self, receipts: Sequence[BundleReceipt]) -> list[Answer]:
        """What it makes of each. Raises MarketError or OSError where it takes none of them."""

    def close(self) -> None:
        """Give up what is still under way, and let go of everything."""


def opened(dest: str, sender: Sender) -> Destination:
    """The destination of a name. Raises UsageError for a name that cannot be one."""
    scheme, _, rest = dest.partition(":")
    if scheme == "dir":
        from tb_cli.network.directory import Directory

        return Directory(rest, sender)
    if scheme == "exec":
        from tb_cli.network.program import Program

        return Program(rest, sender)
    return _Market(dest, sender)


def pieces(receipt: BundleReceipt, open_: Open) -> Iterator[bytes]:
    """The bytes of a bundle; of one that is damaged the last ones are never given.

    Raises IntegrityError (`missing_bundle`, `damaged_bundle`).
    """
    hasher = blake3()
    held = b""
    with open_(receipt) as file:
        try:
            while piece := file.read(PIECE_BYTES):
                hasher.update(piece)
                if held:
                    yield held
                held = piece
        except OSError as error:
            raise _damaged(receipt, f"it cannot be read: {error.strerror}") from error
    if hasher.digest() != receipt.bundle_hash:
        raise _damaged(receipt, f"its hash is {hasher.hexdigest()} by now")
    if held:
        yield held


def failed(error: MarketError) -> Answer:
    """The answer for a bundle that could not be sent. One that is damaged never can be."""
    return Answer("failed", error.message, is_final=isinstance(error, IntegrityError))


class _Market:
    """Another market, which answers with a signed acknowledgement."""

    batch = 1

    def __init__(self, url: str, sender: Sender) -> None:
        from tb_cli.network.http_client import Client

        self._sender = sender
        self._client = Client(url, PATH, sender.timeout_s)
        self._key = sender.key()

    def send(self, receipts: Sequence[BundleReceipt]) -> list[Answer]:
        (receipt,) = receipts
        sender = self._sender
        entries = [envelope.entry_of(receipt)]
        text = envelope.text(sender.market_id, self._key, entries)

        def body() -> Iterator[bytes]:
            yield text
            yield from pieces(receipt, sender.open)

        try:
            found = self._client.post(
                body,
                len(text) + receipt.size,
                {"Content-Type": "application/octet-stream"},
                envelope.ACKNOWLEDGEMENT_BYTES_MAX,
            )
        except IntegrityError as error:
            return [failed(error)]
        try:
            answer = envelope.parse_acknowledgement(found, "the acknowledgement")
            envelope.check_trusted(
                sender.trusted, answer.market_id, answer.key, "the acknowledgement"
            )
            digest = envelope.digest_of(text)
            told = envelope.check_answer(answer, sender.market_id, digest, entries)
        except MarketError as error:
            return [Answer("failed", error.message)]
        taken = told[receipt.receipt_id]
        if taken.outcome == "refused":
            return [Answer("refused", taken.error or "it was refused")]
        return [Answer("acknowledged")]

    def close(self) -> None:
        self._client.close()


def _damaged(receipt: BundleReceipt, problem: str) -> IntegrityError:
    return IntegrityError(
        f"the bundle {receipt.bundle_hash.hex()} is damaged: {problem}", reason="damaged_bundle"
    )
