"""`metrics`: the Prometheus text exposition, on stdout or for the textfile collector."""

import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from cli.session import Session
from compute_market.errors import UsageError


def metrics(
    ctx: typer.Context,
    textfile: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Write to this file at once, for node_exporter."),
    ] = None,
) -> None:
    """Print every metric in the Prometheus text format."""
    # The client library costs more to import than most commands take.
    from compute_market import exposition

    session = Session.of(ctx)
    text = session.view(lambda txn: exposition.render(txn, session.config))
    if textfile is None:
        sys.stdout.write(text)
        return
    temporary = f"{textfile}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, textfile)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise UsageError(f"{textfile}: {error.strerror}") from error
