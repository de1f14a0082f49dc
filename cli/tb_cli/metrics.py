"""`metrics`: the Prometheus text exposition, on stdout or for the textfile collector."""

import sys

from tb_cli.frame.results import PUBLIC, Result
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, option, takes


@examples("tb-cli metrics --textfile node.prom")
@takes(
    option("--textfile", "Write to this file at once, for node_exporter.", metavar="PATH"),
)
def metrics(session: Session, textfile: str | None) -> None:
    # To import them takes longer than most commands do.
    from tb_cli.frame import exposition, price_board

    price_board.load(session)
    if textfile is None:
        sys.stdout.write(exposition.text(session))
        return
    # The exporter is another user.
    with Result(textfile, beside=session.home.path, mode=PUBLIC) as result:
        result.write(exposition.text(session))
