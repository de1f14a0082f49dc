"""Stands in for `oqs` of `liboqs-python`: what importing it does, and what verifying needs of it.

`FAKE_OQS` says what it finds: a library that `works`, one that is `old`, or of another `release`,
one that does not load (`broken`), or none at all (`absent`), where the real one begins to install.
One that is `strange` raises something else when it is imported, one that is `moody` when it is
asked what it has, and one that is `failing` when it is to verify.
`cryptography` verifies the signatures. `FAKE_OQS_LOG` names the file in which is what was done.
"""

import os
import time
import warnings
from types import TracebackType

from compute_market.signatures import pyca


def _log(text: str) -> None:
    with open(os.environ["FAKE_OQS_LOG"], "a") as file:
        file.write(f"{text}\n")


_log("imported")
print("liboqs-python faulthandler is disabled")
_found = os.environ["FAKE_OQS"]
if _found in ("broken", "absent"):
    print("liboqs not found, installing it in ~/_oqs")
    if os.environ.get("PYOQS_VERSION") == "none":
        raise ValueError("Cannot install liboqs version 'none'")
    print("Installing in 5 seconds...", flush=True)
    time.sleep(5)
    _log("installed")
    raise SystemExit(1)
if _found == "exits":
    raise SystemExit("Could not load liboqs shared library")
if _found == "release":
    warnings.warn(
        "liboqs version (major, minor) 0.9.0 differs from liboqs-python version 0.16.0",
        stacklevel=2,
    )


if _found == "strange":
    raise KeyError("liboqs")


def is_sig_enabled(name: str) -> bool:
    if _found == "moody":
        raise RuntimeError("no list of algorithms")
    return name == "ML-DSA-65" and _found != "old"


class Signature:
    def __init__(self, name: str) -> None:
        assert is_sig_enabled(name)

    def __enter__(self) -> "Signature":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _log("freed")

    def verify_with_ctx_str(
        self, message: bytes, signature: bytes, context: bytes, public_key: bytes
    ) -> bool:
        if _found == "failing":
            raise RuntimeError("Can not verify signature")
        _log("verified")
        return pyca.verify(public_key, signature, message, context)
