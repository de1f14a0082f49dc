"""How much of what can be tried without end is tried: a sample in the suite, all in the torture."""

import os

TORTURE = "TB_TORTURE" in os.environ


def effort(few: int, many: int) -> int:
    """How many cases to try: `few` in `make test`, `many` in `make torture`."""
    return many if TORTURE else few
