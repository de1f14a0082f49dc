"""What is installed: files that come with the tool, and what it runs on.

The files are in the wheel beside its code, or in the source tree.
"""

import os
import sys

from compute_market.errors import UsageError


def directory(name: str, in_tree: str, witness: str) -> str:
    """The directory that the wheel calls `name` and the source tree `in_tree`, and that holds a
    file called `witness`. Raises UsageError when it is in neither."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    tree = os.path.dirname(os.path.dirname(package))
    for path in (os.path.join(package, name), os.path.join(tree, in_tree)):
        if os.path.exists(os.path.join(path, witness)):
            return path
    raise UsageError(f"the files of {in_tree} are not installed", hint="run it in the source tree")


def versions() -> dict[str, str | int]:
    """What a report of a bug should name: the schema of the store, Python, and LMDB."""
    import lmdb

    from compute_market.store.schema import SCHEMA_VERSION

    return {
        "schema": SCHEMA_VERSION,
        "python": ".".join(map(str, sys.version_info[:3])),
        "lmdb": ".".join(map(str, lmdb.version())),
    }
