"""Text that others wrote, made fit for one line of a terminal, a log or a message.

Nothing in here knows what the text is about. Ids need none of this: `records.check_id` has seen to
it that they pass anywhere unchanged.
"""

from collections.abc import Iterable, Sequence

SHOWN_MAX = 200  # characters of a foreign text that a message quotes


def counted(count: int, noun: str) -> str:
    """How many there are of what has a regular plural: `1 byte`, `2 bytes`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def legible(text: str) -> str:
    """The text with a backslash escape for every byte that was no UTF-8, as in names of files.

    Such bytes come as halves of surrogate pairs, which nothing can encode.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
        except UnicodeEncodeError:
            return text.encode(errors="backslashreplace").decode()
    return text


def printable(text: str) -> str:
    """The text on one line that cannot command a terminal: what does not print is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def json_escape(character: str) -> str:
    """The escape that JSON has for a character; of one beyond 16 bits, those of its surrogates."""
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def printable_json(text: str) -> str:
    """A JSON document that cannot command a terminal: it means the same.

    What JSON itself escapes are the first 32 characters; DEL, a second set of commands and marks
    that turn the order of text round are left.
    """
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(c if c == "\n" or c.isprintable() else json_escape(c) for c in text)


def one_line(text: str) -> str:
    """The same, with every stretch of white space as one blank: for text that may have lines."""
    return printable(" ".join(text.split()))


def clipped(text: str, length_max: int = SHOWN_MAX) -> str:
    """At most `length_max` characters of the text, its middle left out where it is longer."""
    if len(text) <= length_max:
        return text
    tail = (length_max - 3) // 3
    return f"{text[: length_max - 3 - tail]}...{text[len(text) - tail :]}"


def some_of(items: Sequence[str], between: str = ", ", most: int = 5) -> str:
    """The first items, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return between.join(items[:most]) + more


def quoted(path: str) -> str:
    """A path as an error names it: in quotes, escaped, if a terminal would not show it as it is."""
    return path if path and path.isprintable() else repr(path)


def cause_of(error: OSError) -> str:
    """What the operating system said, as the end of a line."""
    return (error.strerror or str(error)).lower()


def for_terminal(line: str) -> str:
    """A line of another program's format, line break and all, fit for a terminal."""
    return f"{printable(line.rstrip(chr(10)))}\n"


def sum_line(path: str, digest: str) -> str:
    """What b3sum prints: a name with a line break or backslash is escaped and so marked."""
    if "\\" in path or "\n" in path or "\r" in path:
        path = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        return f"\\{digest}  {path}\n"
    return f"{digest}  {path}\n"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that another is most likely meant for: one it is a part of, else one that is
    spelled much like it.
    """
    from difflib import get_close_matches  # Only what is wrong asks for it.

    words = list(known)
    asked = word.lower().replace("-", "_")
    alike = get_close_matches(asked, [each.replace("-", "_") for each in words], 1, 0.7)
    for each in words:
        if each.replace("-", "_") in alike:
            return each
    for each in words:
        whole = each.replace("-", "_")
        if asked and (asked in whole.split("_") or whole.startswith(asked) or f"_{asked}" in whole):
            return each
    return None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The same as a hint."""
    near = nearest(word, known)
    return None if near is None else f"did you mean {near}?"


def is_nearest(hint: str | None) -> bool:
    """Whether a hint is the word that was meant (`did_you_mean`), which is of use in one place."""
    return hint is not None and hint.startswith("did you mean ")
