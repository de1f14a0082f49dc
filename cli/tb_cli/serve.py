"""Verbs on the server: `serve` itself, and its token."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from compute_market.errors import BusyError, UsageError
from tb_cli.frame import serve_token
from tb_cli.frame.render import emit, note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, flag, option, takes

PORT: Final = 26_658
SECOND_PORT: Final = 3030


@takes(
    option("--host", "Where to listen.", metavar="HOST", default="127.0.0.1"),
    option(
        "--port",
        "Where to listen; with 0 the system chooses. Without it 26658, and 3030 if it is free.",
        kind="integer",
        metavar="PORT",
        least=0,
        most=65_535,
    ),
    option(
        "--tls-cert", "Certificate chain in PEM format, to be reached by https.", metavar="FILE"
    ),
    option("--tls-key", "Its private key in PEM format.", metavar="FILE"),
    flag("--insecure", help="Listen without TLS where other machines can reach it."),
    flag("--check", help="Say whether it could serve, and end."),
)
def serve(
    session: Session,
    *,
    host: str,
    port: int | None,
    tls_cert: str | None,
    tls_key: str | None,
    insecure: bool,
    check: bool,
) -> None:
    """Who reaches it may read the market, by paths and by JSON-RPC. What changes it needs the token
    of `tb-cli serve token`; bundles and scores are taken from whoever signs with a key in `[net]
    trusted`. It ends with SIGTERM or Ctrl-C once what is under way is done. Each request leaves a
    line of JSON on stderr.
    """
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together")
    secure = tls_cert is not None
    session.home.check_market()
    try:
        from tb_cli.network import listening, server
        from tb_cli.network.endpoints import endpoints_of
        from tb_cli.network.node import Node
        from tb_cli.network.request_log import RequestLog
    except ImportError as error:
        from compute_market.hashing.probe import installing

        raise UsageError(
            f"serve needs a package that is not installed: {str(error.name).partition('.')[0]}",
            hint=installing("serve"),
        ) from error
    local = listening.is_loopback(host)
    if not (local or secure or insecure):
        raise UsageError(
            f"--host {host!a} can be reached from other machines, and nothing is encrypted",
            hint="give --tls-cert and --tls-key, or --insecure behind what encrypts",
        )
    # Behind what encrypts, or in the open, nobody knows here what the server is called.
    hosts = frozenset(("localhost", "127.0.0.1", "[::1]", host.lower()) if local else ())
    tls = listening.Tls(tls_cert, tls_key) if tls_cert and tls_key else None
    from tb_cli.frame import price_board

    session.tells_of_prices = True
    with Node(session) as node, RequestLog() as log, ExitStack() as opened:
        app = server.application(endpoints_of(node), hosts, log)
        found = server.Server(app, session.config.courier_timeout_secs, log, tls, node.save_prices)
        sockets = [opened.enter_context(listening.listen(host, PORT if port is None else port))]
        if port is None:
            with _told_if_in_use(SECOND_PORT):
                sockets.append(opened.enter_context(listening.listen(host, SECOND_PORT)))
        urls = [listening.url_of(each, secure=secure) for each in sockets]
        text = f"{'could serve' if check else 'serving'} on {' and '.join(urls)}"
        document = {"url": urls[0], "market_id": node.market_id.hex(), "urls": urls}
        if check:
            serve_token.read(session.home.serve_token)
        else:
            node.token.make()
        emit(session, document, text)
        sys.stdout.flush()
        if not check:
            price_board.load(session)
            found.run(sockets)
            session.save_prices()  # What is told of that is for the log.


@takes(flag("--rotate", help="Make another one: who has the old one may change nothing more."))
@examples(
    "tb-cli serve token",
    "tb-cli serve token --rotate",
)
def token(session: Session, *, rotate: bool) -> None:
    """One is made where there is none. It is the file `serve.token` in the home, which a server
    that runs looks at with each request: nothing has to be started anew.
    """
    session.home.check_market()
    path = session.home.serve_token
    before = None if rotate else serve_token.read(path)
    found = before or serve_token.made()
    if before is None and not session.dry_run:
        found = serve_token.write(path, found, replace=rotate)
    emit(session, {"token": found, "changed": before is None}, found)


@contextmanager
def _told_if_in_use(port: int) -> Iterator[None]:
    """Say that a port is somebody else's by now, and go on without it."""
    try:
        yield
    except BusyError:
        note(f"port {port} is in use, and not served on")
