"""Verbs on the server: `serve` itself, and its token."""

import signal
import sys
from contextlib import ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, Final

from compute_market.errors import BusyError, UsageError
from tb_cli.frame import serve_token
from tb_cli.frame.guard import Terminated
from tb_cli.frame.render import emit, note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, flag, option, takes

if TYPE_CHECKING:
    from socket import socket

PORT: Final = 26_658
SECOND_PORT: Final = 3030
_HOST: Final = "127.0.0.1"


@examples("tb-cli serve --check")
@takes(
    option("--host", "Where to listen; 127.0.0.1 unless given.", metavar="HOST"),
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
    option(
        "--log-format",
        "What the lines on stderr are; lines of JSON unless given.",
        choices=("json", "text"),
        default="json",
    ),
    flag("--check", help="Say whether it could serve, and end."),
)
def serve(
    session: Session,
    *,
    host: str | None,
    port: int | None,
    tls_cert: str | None,
    tls_key: str | None,
    insecure: bool,
    log_format: str,
    check: bool,
) -> None:
    """Who reaches it may read the market, by paths and by JSON-RPC. What changes it needs the token
    of `tb-cli serve token`; bundles and scores are taken from whoever signs with a key in `[net]
    trusted`. It ends with SIGTERM or Ctrl-C once what is under way is done; SIGHUP has the
    certificate read anew. Each request leaves a line on stderr.
    """
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together")
    session.home.check_market()
    # No hang-up ends it, neither before it answers nor while it ends.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with nullcontext() if check else suppress(KeyboardInterrupt, Terminated):
        _run(session, host, port, tls_cert, tls_key, insecure, log_format, check)


def _run(
    session: Session,
    host: str | None,
    port: int | None,
    tls_cert: str | None,
    tls_key: str | None,
    insecure: bool,
    log_format: str,
    check: bool,
) -> None:
    try:
        from tb_cli.network import listening, server, service_manager
        from tb_cli.network.endpoints import endpoints_of
        from tb_cli.network.node import Node
        from tb_cli.network.request_log import RequestLog
        from tb_cli.network.tls import Tls
    except ImportError as error:
        from compute_market.hashing.probe import installing

        raise UsageError(
            f"serve needs a package that is not installed: {str(error.name).partition('.')[0]}",
            hint=installing("serve"),
        ) from error
    tls = Tls(tls_cert, tls_key) if tls_cert and tls_key else None
    manager = service_manager.ServiceManager()
    handed_over = service_manager.handed_over()
    if handed_over and (host, port) != (None, None):
        raise UsageError(
            "--host and --port say nothing where sockets are handed over",
            hint="the unit of the socket says where to listen",
        )
    from tb_cli.frame import price_board

    session.tells_of_prices = True
    with ExitStack() as stack:
        sockets = handed_over or _listening(host, port)
        for each in sockets:
            stack.enter_context(each)
        hosts = listening.hosts_of(sockets, host)
        if not (hosts or tls or insecure):
            where = "a socket that was handed over" if host is None else f"--host {host!a}"
            raise UsageError(
                f"{where} can be reached from other machines, and nothing is encrypted",
                hint="give --tls-cert and --tls-key, or --insecure behind what encrypts",
            )
        # To the end: what a change leaves to be told, when it is the last one, too.
        log = stack.enter_context(RequestLog("text" if log_format == "text" else "json"))
        node = stack.enter_context(Node(session))
        found = server.Server(
            server.application(endpoints_of(node), hosts, log),
            session.config.courier_timeout_secs,
            log,
            tls,
            node.save_prices,
            manager,
        )
        urls = [listening.url_of(each, secure=tls is not None) for each in sockets]
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


def _listening(host: str | None, port: int | None) -> "list[socket]":
    """Sockets at the port, or at both of those that need not be given, the second if it is free."""
    from tb_cli.network import listening

    where = _HOST if host is None else host
    if port is not None:
        return [listening.listen(where, port)]
    first = listening.listen(where, PORT)
    try:
        return [first, listening.listen(where, SECOND_PORT)]
    except BusyError:
        note(f"port {SECOND_PORT} is in use, and not served on")
        return [first]
