"""The settings of one command: from its options, its environment and the file of the home."""

import os
from typing import TYPE_CHECKING

from compute_market.config import files
from compute_market.config.rows import VARIABLES
from compute_market.records import replace
from tb_cli.frame.home import OTHER_VARIABLES

if TYPE_CHECKING:
    from compute_market.config.settings import Config


def load(
    path: str, lock_timeout_secs: float | None
) -> "tuple[Config, dict[str, str], tuple[str, ...]]":
    """The configuration, the origin of each setting, and variables that name none by mistake.

    Raises UsageError for a setting that is wrong.
    """
    loaded, origins = files.load(files.content_of(path), path, os.environ)
    known = {*origins.values(), *OTHER_VARIABLES}
    strangers = (name for name in os.environ if name.startswith(VARIABLES) and name not in known)
    unknown = tuple(strangers)
    if lock_timeout_secs is not None:
        origins["lock_timeout_secs"] = "--lock-timeout"
        loaded = replace(loaded, lock_timeout_secs=lock_timeout_secs)
    return loaded, origins, unknown


def warning_of(variable: str) -> str:
    """What is told of a variable that names no setting."""
    from compute_market.config.shown import near_variable

    near = near_variable(variable)
    return f"warning: {variable} names no setting" + (f"; did you mean {near}?" if near else "")
