"""`metrics`: the Prometheus text exposition, on stdout or for the textfile collector."""

import sys
from typing import Annotated

import typer

from tb_cli.frame import files
from tb_cli.frame.session import Session


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
    files.replace(textfile, text)
