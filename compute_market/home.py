"""What the files of a home directory are called."""

from typing import Final

STORE: Final = "market"  # the directory of the LMDB environment
CONFIG: Final = "config.toml"
CANCELLATIONS_LOG: Final = "cancellations.log"
CALIBRATION: Final = "calibration.json"
