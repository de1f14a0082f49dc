"""ML-DSA-65 by liboqs, through `oqs` of the distribution `liboqs-python`. It verifies only.

It cannot expand a key from its seed. Importing `oqs` without the shared library prints to standard
output, waits, clones and builds one, and raises SystemExit: so the library is looked for first, and
its installer is given a version that it takes for none. It is foreign code around a foreign
library: whatever it raises means that it is of no use here, and is never an error of a command.
"""

import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from types import ModuleType
from typing import Final

_ALGORITHM: Final = "ML-DSA-65"
_INSTALL_PATH: Final = "OQS_INSTALL_PATH"
_INSTALLED_VERSION: Final = "PYOQS_VERSION"
# Names by which the loader may know it, that of a development package and that of a release.
_NAMES: Final = ("liboqs.so", "liboqs.so.9")
# What it may raise: anything, and SystemExit where its library does not load.
_FAILURES: Final = (Exception, SystemExit)


def load(environment: MutableMapping[str, str]) -> bool:
    """Load liboqs into this process, if it is there and has ML-DSA-65; whether it now is.

    `environment` is that of the process: `OQS_INSTALL_PATH` or `HOME` lead to the library. It is
    not used with a `liboqs-python` of another minor release. Nothing is printed.
    """
    if loaded() is not None:
        return True
    if not is_there(environment):
        return False
    import warnings
    from contextlib import redirect_stdout
    from io import StringIO

    before = environment.get(_INSTALLED_VERSION)
    environment[_INSTALLED_VERSION] = "none"
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.filterwarnings("error", "liboqs version")
            __import__("oqs")
    except _FAILURES:
        return False
    finally:
        if before is None:
            del environment[_INSTALLED_VERSION]
        else:
            environment[_INSTALLED_VERSION] = before
    return loaded() is not None


def is_there(environment: Mapping[str, str]) -> bool:
    """Whether there is a shared library of it: where `oqs` looks, or where the loader does."""
    if any(map(os.path.exists, _places(environment))):
        return True
    from ctypes import CDLL

    for name in _NAMES:
        try:
            CDLL(name)
        except OSError:
            continue
        return True
    return False


def loaded() -> ModuleType | None:
    """The module, in a process that has loaded it; a package of that name may be another one."""
    oqs = sys.modules.get("oqs")
    try:
        has = getattr(oqs, "is_sig_enabled", None)
        return oqs if has is not None and has(_ALGORITHM) else None
    except _FAILURES:
        return None


def verify(public_key: bytes, signature: bytes, message: bytes, context: bytes) -> bool | None:
    """Whether a signature is good; None where it is not loaded, or fails to say."""
    oqs = loaded()
    if oqs is None:
        return None
    try:
        with oqs.Signature(_ALGORITHM) as verifier:
            return bool(verifier.verify_with_ctx_str(message, signature, context, public_key))
    except _FAILURES:
        return None


def _places(environment: Mapping[str, str]) -> Iterator[str]:
    home = environment.get("HOME")
    base = environment.get(_INSTALL_PATH) or (os.path.join(home, "_oqs") if home else None)
    if base is not None:
        for directory in ("lib", "lib64"):
            yield os.path.join(base, directory, _NAMES[0])
