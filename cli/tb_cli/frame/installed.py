"""Files that come with the tool: in the wheel beside its code, or in the source tree."""

import os

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
