"""The lines of a trace file, plain or compressed, one at a time: any number in flat memory."""

import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NoReturn

from compute_market.errors import UsageError, file_error
from compute_market.text import clipped, printable, quoted

# A line of any of the forms has a few hundred bytes, an event of the log at most some thousands.
LINE_BYTES_MAX: Final = 64 * 1024
# What a file may come to, decompressed: a small one can stand for any amount.
FILE_BYTES_MAX: Final = 2**33
_CHUNK: Final = 2**16
_GZIP: Final = b"\x1f\x8b"
_OTHERS: Final = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd", b"PK\x03\x04": "zip"}
_BOM: Final = b"\xef\xbb\xbf"
_SHOWN_MAX: Final = 60


class TraceError(UsageError):
    """A line of a trace is not what it must be; the message names file and line."""


def fail(path: str, number: int, problem: str, hint: str | None = None) -> NoReturn:
    """Raise what is wrong with a line of a trace."""
    raise TraceError(f"{quoted(path)}:{number}: {problem}", hint=hint, line=number)


def shown(text: str) -> str:
    """Text of a trace as an error quotes it: short, on one line."""
    return printable(clipped(text, _SHOWN_MAX)) or "nothing"


def lines(path: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its line break) of a file of UTF-8 text, blank lines left out.

    A file that begins like one of gzip is decompressed, whatever it is called. CRLF and a byte
    order mark are taken. Raises TraceError for a line of more than `LINE_BYTES_MAX` bytes, a NUL
    byte and what is no text, UsageError and BusyError for a file that cannot be read.
    """
    for number, line in enumerate(_split(path, _bytes(path)), 1):
        if b"\0" in line:
            fail(path, number, "there is a NUL byte in it: this is no text")
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            fail(path, number, f"byte {error.start + 1} is not UTF-8")
        if text.strip():
            yield number, text.rstrip("\r\n")


def check_lines(path: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks of a stream that is to be kept, while no line is far too long.

    So a line without an end is told before there is no room for it. Raises TraceError for one. Of
    what is compressed nothing is known yet.
    """
    number, length, is_packed = 1, 0, False
    for count, chunk in enumerate(chunks):
        is_packed = is_packed or (count == 0 and chunk.startswith(_GZIP))
        breaks = chunk.count(b"\n")
        number += breaks
        length = len(chunk) - chunk.rfind(b"\n") - 1 if breaks else length + len(chunk)
        if length > LINE_BYTES_MAX and not is_packed:
            _fail_long(path, number)
        yield chunk


def _fail_long(path: str, number: int) -> NoReturn:
    fail(path, number, f"the line has more than {LINE_BYTES_MAX} bytes")


def _split(path: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines with their line breaks."""
    number, rest = 0, b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            if len(line) > LINE_BYTES_MAX:
                break
            yield line
        else:
            if len(rest) <= LINE_BYTES_MAX:
                continue
            number += 1
        _fail_long(path, number)
    if rest:
        yield rest


def _bytes(path: str) -> Iterator[bytes]:
    """The content, decompressed and without a byte order mark."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise file_error(quoted(path), error) from error
        raise UsageError(f"{quoted(path)}: {error}") from error
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise UsageError(f"{quoted(path)}: is a directory")
        found = _checked_length(path, _plain(path, lambda: os.read(descriptor, _CHUNK)))
        first = b""
        for chunk in found:
            first += chunk
            if len(first) >= len(_BOM):
                break
        yield first.removeprefix(_BOM)
        yield from found
    except OSError as error:
        raise file_error(quoted(path), error) from error
    finally:
        os.close(descriptor)


def _plain(path: str, read: Callable[[], bytes]) -> Iterator[bytes]:
    """What is read, decompressed if it begins so."""
    first = read()
    while first and len(first) < len(_GZIP) and (more := read()):
        first += more
    for magic, name in _OTHERS.items():
        if first.startswith(magic):
            raise UsageError(
                f"{quoted(path)}: is compressed with {name}", hint="decompress it, or use gzip"
            )
    if not first.startswith(_GZIP):
        yield first
        yield from iter(read, b"")
        return
    try:
        yield from _decompressed(path, first, read)
    except zlib.error as error:
        raise UsageError(f"{quoted(path)}: the compressed data is damaged") from error


def _decompressed(path: str, first: bytes, read: Callable[[], bytes]) -> Iterator[bytes]:
    """The members of a gzip file one after another, a chunk at a time."""
    packed: bytes = first
    while packed:
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while not member.eof:
            yield member.decompress(packed, _CHUNK)
            packed = member.unconsumed_tail
            if not packed and not member.eof:
                packed = read()
                if not packed:
                    raise UsageError(f"{quoted(path)}: the compressed data is cut off")
        packed = member.unused_data or read()
        if not packed.strip(b"\0"):
            return  # Padding may follow the last member.


def _checked_length(path: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    length = 0
    for chunk in chunks:
        length += len(chunk)
        if length > FILE_BYTES_MAX:
            raise UsageError(f"{quoted(path)}: has more than {FILE_BYTES_MAX} bytes of text")
        yield chunk
