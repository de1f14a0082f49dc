"""Files of other users, and the modes that files get."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SOMEBODY = 12_345  # a user and a group without an entry anywhere

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act in a home of another")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    previous = os.umask(mask)
    try:
        yield
    finally:
        os.umask(previous)
