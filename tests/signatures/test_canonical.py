"""JSON of somebody else is refused, whatever it is, and nothing but refused."""

import pytest
from msgspec import Struct

from compute_market.errors import IntegrityError
from compute_market.signatures import canonical


class _Document(Struct):
    number: int


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff",
        b'{"number": "1"}',
        b'{"number": "\xff"}',
        b'{"other": ' + b"[" * 2000 + b"]" * 2000 + b', "number": 1}',
        b"[" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_what_cannot_be_read_is_malformed(text: bytes) -> None:
    for read in canonical.decoded, canonical.parsed:
        with pytest.raises(IntegrityError, match=r"^the line") as caught:
            read(text, _Document, "the line")
        assert caught.value.reason == "malformed"
    canonical.check_kind(text, "tb-receipts", 1, "the file")  # Left to who reads it.
