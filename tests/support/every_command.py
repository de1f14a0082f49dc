"""Imports what any command of `tb-cli` imports by and by, and opens nothing."""

from contextlib import suppress

from tb_cli.frame.verbs import Group
from tb_cli.tree import TREE


def _import_all(group: Group) -> None:
    for node in group.commands.values():
        if isinstance(node, Group):
            _import_all(node)
        else:
            node.function()


_import_all(TREE)
for _name in (
    "blake3",
    "lmdb",
    "compute_market.engine",
    "tb_cli.frame.guard",
    "tb_cli.frame.render",
):
    __import__(_name)
with suppress(ImportError):  # An extra that need not be installed.
    __import__("tb_cli.network.endpoints")
    __import__("tb_cli.network.server")
