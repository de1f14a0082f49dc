"""The backends of signatures in a command: looked for when one verifies, and by no other."""

import os

from compute_market.signatures import liboqs, signatures


def prepare_to_verify() -> None:
    """Load the faster backend if the machine has it. A verb that verifies calls this first."""
    liboqs.load(os.environ)


def backends() -> dict[str, str]:
    """What signs and what verifies here."""
    prepare_to_verify()
    return {
        "signing_backend": signatures.SIGNING_BACKEND,
        "verifying_backend": signatures.verifying_backend(),
    }
