"""The text of the kernels."""

import os
import re

_INCLUDE = re.compile(r'^#include "(\w+\.h)"$', re.MULTILINE)


def source(name: str) -> str:
    """The text of a kernel file, `blake3` or `fma`, with its headers in place of the includes.

    A compiler that gets one string needs no path to look for headers, and whoever caches what it
    made of the string notices every change.
    """
    return _INCLUDE.sub(lambda include: _read(include[1]), _read(f"{name}.cu"))


def _read(name: str) -> str:
    with open(os.path.join(os.path.dirname(__file__), name), encoding="ascii") as file:
        return file.read()
