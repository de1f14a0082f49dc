"""Certificates that a server shows: read when it starts, and again when it is told to."""

import ssl

from msgspec import Struct

from compute_market.errors import UsageError
from compute_market.text import cause_of


class Tls(Struct, frozen=True, gc=False):
    """Files in PEM format."""

    certificate: str
    key: str


def context_of(tls: Tls) -> ssl.SSLContext:
    """What speaks TLS. Raises UsageError for files that are of no use."""

    def no_password() -> str:
        raise UsageError(
            "--tls-key is encrypted, and there is nobody to ask for its password",
            hint="give one that is not, in a file that nobody else may read",
        )

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.certificate, tls.key, no_password)
    except OSError as error:  # ssl.SSLError is one.
        raise UsageError(f"--tls-cert or --tls-key: {cause_of(error)}") from error
    return context
