"""The settings of one command: from its options, its environment and the file of the home."""

import os
from typing import TYPE_CHECKING

from compute_market.config import files
from compute_market.records import replace

if TYPE_CHECKING:
    from compute_market.config.settings import Config


def load(path: str, lock_timeout_secs: float | None) -> "tuple[Config, dict[str, str]]":
    """The configuration and the origin of each setting. Raises UsageError for one that is wrong."""
    loaded, origins = files.load(files.content_of(path), path, os.environ)
    if lock_timeout_secs is not None:
        origins["lock_timeout_secs"] = "--lock-timeout"
        loaded = replace(loaded, lock_timeout_secs=lock_timeout_secs)
    return loaded, origins
