"""JSON documents from files and stdin: one in a file, however it is laid out, one per line, or
those of lists.
"""

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from msgspec import DecodeError, Raw, json

from compute_market.errors import MarketError, UsageError
from compute_market.json_documents import DOCUMENT_BYTES_MAX, Document, documents, parse
from compute_market.text import one_line
from tb_cli.frame.bulk import Given, Place
from tb_cli.frame.files import directory_of
from tb_cli.frame.lines import Lines
from tb_cli.frame.render import note


class JsonLines:
    """The documents of some files, `-` being stdin, read as they are taken.

    With `keep` it can tell what was not dealt with. A file that is wrong as a whole is one wrong
    document, unless it is the only one.
    """

    def __init__(self, paths: list[str], *, keep: bool = False) -> None:
        self._paths = paths
        self._files = [Lines(path, DOCUMENT_BYTES_MAX, keep=keep) for path in paths]
        self._next = 0  # the file of which not all was dealt with
        # Of the first line that is kept of it, the bytes that were: they end behind an element.
        self._behind = 0
        self._goes_on = False  # whether any of it was

    def __iter__(self) -> Iterator[tuple[str, Document, Place]]:
        """Each document, what its paths are relative to, and its place."""
        for index, lines in enumerate(self._files):
            directory = directory_of(lines.path)
            is_empty = True
            try:
                for document in documents(lines, lines.source):
                    is_empty = False
                    yield directory, document, _place(index, document)
            except UsageError as error:
                if len(self._files) == 1:
                    raise
                is_empty = False
                yield directory, Document(lines.source, {}, error), (index,)
            if is_empty and len(self._files) > 1:
                note(f"{lines.source}: nothing in it")

    @property
    def total(self) -> int | None:
        return None

    def again(self, given: Given[Any]) -> str:
        """The document on one line, with paths that are right anywhere."""
        if given.place is None:
            return ""
        index, *place = given.place
        lines = self._files[index]
        if not place:
            return self._rest_of(index)
        return _portable(_text(lines, *place), directory_of(lines.path))

    def forget(self, place: Place) -> None:
        """Everything up to that place was dealt with."""
        self._next = place[0]
        self._behind = 0
        self._goes_on = len(place) > 1
        if not self._goes_on:
            self._next += 1
            return
        _, _, last, *columns = place
        if columns:
            last -= 1  # More may stand in that line.
            self._behind = columns[1]
        self._files[self._next].forget(last)

    def left(self) -> Iterator[str]:
        """What was not dealt with, read or not."""
        for index in range(self._next, len(self._files)):
            yield from self._left_of(index)

    def _rest_of(self, index: int) -> str:
        """What is left of a file that is wrong as a whole, or from there on; of one that cannot be
        read nothing, which its outcome names."""
        try:
            return "\n".join(self._left_of(index))
        except MarketError:
            return ""

    def _left_of(self, index: int) -> Iterator[str]:
        lines = self._files[index]
        behind, goes_on = (self._behind, self._goes_on) if index == self._next else (0, False)
        for text in _texts(lines.left(), behind, goes_on=goes_on):
            yield _portable(text, directory_of(lines.path))


def _place(index: int, document: Document) -> Place:
    return (index, *document.lines, *(document.columns or ()))


def _text(lines: Lines, first: int, last: int, start: int = 0, behind: int = 0) -> bytes:
    """A document as it is written, while its lines are kept."""
    if not behind:
        return lines.kept(first, last)
    end = behind - 1  # without the comma or bracket
    if first == last:
        return lines.kept(first, last)[start:end]
    return lines.kept(first, last - 1)[start:] + lines.kept(last, last)[:end]


def _texts(lines: Iterable[bytes], behind: int = 0, *, goes_on: bool = False) -> Iterator[bytes]:
    """The documents as they are written, right or wrong; those that come `behind` in their line.

    What stands behind a list that is wrong as a whole is read as one per line, and so are they if
    the file `goes_on`.
    """
    kept: dict[int, bytes] = {}

    def keeping() -> Iterator[bytes]:
        for number, line in enumerate(lines, 1):
            kept[number] = line
            yield line

    def rest(first: int, last: int) -> bytes:
        """Lines, without what was told of them."""
        texts = {number: kept.pop(number, b"") for number in range(first, last + 1)}
        if done[0] in texts:
            texts[done[0]] = texts[done[0]][done[1] :]
        return b"".join(texts.values())

    read = keeping()
    # The line in which the last element ends, and where what follows it begins.
    began = done = (1, behind) if behind else (0, 0)
    try:
        for document in documents(read, "", behind=behind, goes_on=goes_on):
            if document.columns is None:
                yield rest(*document.lines)
                continue
            yield document.text
            done = document.lines[1], document.columns[1]
            for number in [each for each in kept if each < done[0]]:
                del kept[number]
    except UsageError:
        left = rest(min(kept), max(kept))
        if done == began:  # Nothing of it could be told apart.
            yield left
            yield from _texts(read, goes_on=True)
        else:
            yield from _texts(chain(left.splitlines(keepends=True), read), goes_on=True)


def _portable(text: bytes, directory: str) -> str:
    """A document on one line, its slices by absolute paths; one that is wrong as it is."""
    try:
        parse(text, "")
        fields = json.decode(text, type=dict[str, Raw])
        if "slices" in fields:
            slices = json.decode(fields["slices"], type=list[Any])
            fields["slices"] = Raw(json.encode([_absolute(each, directory) for each in slices]))
        return json.format(json.encode(fields), indent=-1).decode()
    except (DecodeError, UnicodeDecodeError, RecursionError, UsageError):
        return one_line(text.decode(errors="backslashreplace"))


def _absolute(entry: Any, directory: str) -> Any:
    if isinstance(entry, str):
        return os.path.abspath(os.path.join(directory, entry))
    if isinstance(entry, dict) and isinstance(entry.get("path"), str):
        return entry | {"path": _absolute(entry["path"], directory)}
    return entry
