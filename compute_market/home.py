"""What the files of a home directory are called."""

from typing import Final

STORE: Final = "market"  # the directory of the LMDB environment
# In it: the data, and the write lock, which is there once a market has been made.
DATA: Final = "data.mdb"
WRITE_LOCK: Final = "write.lock"
CONFIG: Final = "config.toml"
CANCELLATIONS_LOG: Final = "cancellations.log"
CALIBRATION: Final = "calibration.json"
LAST_BACKUP: Final = "last_backup"  # when the last backup was made, and where
