"""`metrics`: the Prometheus text exposition, on stdout or for the textfile collector."""

import sys

from tb_cli.frame.results import PUBLIC, Result
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import option, takes


@takes(
    option("--textfile", "Write to this file at once, for node_exporter.", metavar="PATH"),
)
def metrics(session: Session, textfile: str | None) -> None:
    # The client library costs more to import than most commands take.
    from compute_market import exposition
    from tb_cli.frame import price_board

    price_board.load(session)
    if textfile is None:
        sys.stdout.write(session.view(exposition.render))
        return
    with Result(textfile, mode=PUBLIC) as result:  # The exporter is another user.
        result.write(session.view(exposition.render))
