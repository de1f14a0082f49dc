"""Types that msgspec reads into, learned by one thread at a time.

What it finds out of a type it keeps with that type, and shows to other threads before it is whole:
two that meet one for the first time at once can crash. Whoever reads into a type names it here.
"""

from _thread import allocate_lock
from functools import cache
from typing import Any, Final, TypeVar, cast

from msgspec.msgpack import Decoder

T = TypeVar("T")

_learning: Final = allocate_lock()


def learned(kind: type[T]) -> type[T]:
    """The same type, with all that it is made of, free to be read into by any thread."""
    _learn(cast("Any", kind))
    return kind


def decoder(kind: type[T]) -> "Decoder[T]":
    """What reads MessagePack into a type."""
    return _learn(cast("Any", kind))


@cache
def _learn(kind: Any) -> "Decoder[Any]":
    with _learning:
        return Decoder(kind)
