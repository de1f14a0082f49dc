"""How much of what can be tried without end is tried: a sample in the suite, all in the torture."""

import os
from collections.abc import Iterable
from random import Random
from typing import TypeVar

T = TypeVar("T")

TORTURE = "TB_TORTURE" in os.environ
# What must be there, so that a test which has to do without it fails.
REQUIRED = frozenset(os.environ.get("TB_REQUIRE", "").replace(",", " ").split())
# A folder with a production trace, if there is one.
TRACES = os.environ.get("TB_TRACES")
# Variables that are those of the tests; commands warn of what they do not know.
VARIABLES = ("TB_TORTURE", "TB_REQUIRE", "TB_TRACES")


def effort(few: int, many: int) -> int:
    """How many cases to try: `few` in `make test`, `many` in `make torture`."""
    return many if TORTURE else few


def sample(cases: Iterable[T], few: int, seed: int | str = 8) -> list[T]:
    """Which cases to try, in their order: `few`, the same in every `make test`, or all of them."""
    found = list(cases)
    chosen = set(Random(seed).sample(range(len(found)), min(effort(few, len(found)), len(found))))
    return [case for number, case in enumerate(found) if number in chosen]
