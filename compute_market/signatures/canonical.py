"""One JSON form of what is signed: a line that says the same in any other bytes is refused.

Fields in their order, no spaces, hex in lower case, a newline at the end.
"""

from typing import TypeVar

from msgspec import DecodeError, Struct, ValidationError, json

from compute_market.errors import IntegrityError
from compute_market.learned import learned
from compute_market.text import clipped

S = TypeVar("S", bound=Struct)
T = TypeVar("T")

_SHOWN_MAX = 60  # characters of what stands in the place of a format
_MESSAGE_MAX = 300  # characters of what is wrong with a line, which may quote it


class _Kind(Struct, gc=False):
    """What every file with a format says of itself, whatever else it holds."""

    format: str
    version: int


def line(document: Struct) -> bytes:
    """The canonical form of a document, with its newline."""
    return json.encode(document) + b"\n"


def parsed(text: bytes, kind: type[S], what: str) -> S:
    """The document that a canonical line holds.

    Raises IntegrityError (`malformed`) naming `what` for anything that is not the canonical form of
    one: another field, a field twice, spaces, a carriage return, upper-case hex digits.
    """
    found = decoded(text, kind, what)
    if line(found) != text:
        raise IntegrityError(
            f"{what} is not in its canonical form: one line of JSON, fields in order, no spaces",
            hint="export it again; an editor may have changed it",
            reason="malformed",
        )
    return found


def decoded(text: bytes, kind: type[T], what: str) -> T:
    """What JSON of somebody else holds, in whatever form.

    Raises IntegrityError (`malformed`) naming `what` for what is not JSON, of another kind, or
    nested deeper than can be read: also a field that nobody asks for has to be gone through.
    """
    try:
        return json.decode(text, type=learned(kind))
    except ValidationError as error:
        from compute_market.field_errors import field_error  # Few documents are wrong.

        raise malformed(field_error(what, str(error), kind).message) from error
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        from compute_market.field_errors import no_json

        raise malformed(f"{what}: {no_json(error)}") from error


def check_kind(text: bytes, format_: str, version: int, what: str) -> None:
    """Make sure that a file is of a format, before its fields are looked at: its first line says.

    Raises IntegrityError (`malformed`) naming both for one of another. What is of no format at all
    is left to `parsed`, which says why it cannot be read.
    """
    try:
        found = decoded(text.split(b"\n", 1)[0], _Kind, what)
    except IntegrityError:
        return
    if (found.format, found.version) != (format_, version):
        shown = clipped(f"{found.format}, version {found.version}", _SHOWN_MAX)
        raise malformed(
            f"{what} is a file of format {shown}; {format_}, version {version}, is asked for"
        )


def malformed(problem: str) -> IntegrityError:
    """The error for what is not of the form it must have."""
    return IntegrityError(problem, reason="malformed")


def unhex(text: str, count: int, what: str) -> bytes:
    """The `count` bytes behind lower-case hex. Raises IntegrityError (`malformed`)."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != count or found.hex() != text:
        raise malformed(f"{what} is not {2 * count} lower-case hex digits")
    return found


def at_line(number: int, error: IntegrityError, source: str) -> IntegrityError:
    """The same error, told of a line of a source, if that has a name: the file it is."""
    place = f"{source} line {number}" if source else f"line {number}"
    return IntegrityError(
        f"{place}: {clipped(error.message, _MESSAGE_MAX)}",
        hint=error.hint,
        reason=error.reason,
        **error.details,
        line=number,
    )
