"""Durations and sizes as people write them: `90s`, `1h30m`, `10GiB`.

Whoever reads one says of what unit a bare number is. Only whole numbers of that unit come out.
"""

from typing import Final

# A duration in milliseconds, from the longest unit to the shortest, as they may follow each other.
_DURATIONS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
# A size in bytes. A letter alone is of 1024, as programs for files have it.
_SIZES: Final = {
    "b": 1,
    **{
        name: base**power
        for power, letter in enumerate("kmgt", 1)
        for name, base in ((letter, 1024), (f"{letter}ib", 1024), (f"{letter}b", 1000))
    },
}
# A size in MB where that is the unit, as of the memory of a GPU: 2^20 bytes, so that its tools,
# which say MB and mean that, and people, who say GiB, speak of the same.
_MEMORY: Final = {
    "m": 1,
    "mb": 1,
    "mib": 1,
    "g": 1024,
    "gib": 1024,
    "gb": 1000,
    "t": 1024**2,
    "tib": 1024**2,
    "tb": 1000**2,
}
# What a bare number is of, and how it may be written otherwise: the scale, and the unit on it.
_UNITS: Final = {
    "seconds": (_DURATIONS, 1000),
    "milliseconds": (_DURATIONS, 1),
    "bytes": (_SIZES, 1),
    "GiB": (_SIZES, 2**30),
    "MB": (_MEMORY, 1),
}
UNITS: Final = frozenset(_UNITS)
_DIGITS_MAX = 12  # of each number: more would be out of every range


def in_unit(text: str, unit: str) -> int | None:
    """How many of a unit of `UNITS` a text stands for; None if it is no such quantity.

    Bare digits are of the unit itself. What is no whole number of it is none.
    """
    scale, one = _UNITS[unit]
    if _is_number(text):
        return int(text)
    total = _sum(text, _DURATIONS) if scale is _DURATIONS else _size(text.lower(), scale)
    return None if total is None or total % one else total // one


def is_duration(unit: str) -> bool:
    return _UNITS[unit][0] is _DURATIONS


def written(value: int, unit: str) -> str:
    """So many of a unit as people write a duration, and a size as it is: `1d`, `500 MB`."""
    if not is_duration(unit):
        return f"{value} {unit}"
    value_ms = value * _UNITS[unit][1]
    for name, one_ms in _DURATIONS.items():
        if value_ms and value_ms % one_ms == 0:
            return f"{value_ms // one_ms}{name}"
    return "0s"


def ways_to_write(unit: str) -> str:
    """The same for people, as a hint says it."""
    if is_duration(unit):
        return f"90s, 15m, 2h, 3d or 1h30m; a bare number is {unit}"
    example = "24GiB" if unit == "MB" else "10GiB or 500MB"
    return f"{example}; a bare number is {unit}"


def _sum(text: str, scale: dict[str, int]) -> int | None:
    """Numbers with units that become shorter: `1h30m`."""
    total = 0
    longest = max(scale.values()) + 1
    while text:
        digits = len(text) - len(text.lstrip("0123456789"))
        end = digits + len(text[digits:]) - len(text[digits:].lstrip("".join(scale)))
        value = scale.get(text[digits:end])
        if value is None or value >= longest or not _is_number(text[:digits]):
            return None
        total, longest, text = total + int(text[:digits]) * value, value, text[end:]
    return total if longest <= max(scale.values()) else None


def _size(text: str, scale: dict[str, int]) -> int | None:
    number = text.rstrip("".join(scale))
    value = scale.get(text[len(number) :])
    return int(number) * value if value is not None and _is_number(number) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX
