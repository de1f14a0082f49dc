"""`tb-cli serve`: what other markets send is taken in over HTTP."""

import sys
from contextlib import ExitStack

from compute_market.errors import UsageError
from tb_cli.frame.render import emit
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import flag, option, takes

_HOST = "127.0.0.1"


@takes(
    option("--host", "Where to listen; 127.0.0.1 unless given.", metavar="HOST"),
    option(
        "--port",
        "Where to listen; with 0 the system chooses.",
        kind="integer",
        metavar="PORT",
        least=0,
        most=65_535,
        default=26_658,
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
    port: int,
    tls_cert: str | None,
    tls_key: str | None,
    insecure: bool,
    log_format: str,
    check: bool,
) -> None:
    """Bundles and scores are taken from whoever signs with a key in `[net] trusted`. It ends with
    SIGTERM or Ctrl-C once what is under way is done; SIGHUP has the certificate read anew. Each
    request leaves a line on stderr.
    """
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together")
    session.home.check_market()
    try:
        from tb_cli.network import endpoints, listening, server, service_manager
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
    if handed_over and host is not None:
        raise UsageError(
            "--host says nothing where sockets are handed over",
            hint="the unit of the socket says where to listen",
        )
    from tb_cli.frame import price_board

    session.tells_of_prices = True
    with ExitStack() as stack:
        sockets = handed_over or [listening.listen(_HOST if host is None else host, port)]
        for each in sockets:
            stack.enter_context(each)
        hosts = listening.hosts_of(sockets, host)
        if not (hosts or tls or insecure):
            where = "a socket that was handed over" if host is None else f"--host {host!a}"
            raise UsageError(
                f"{where} can be reached from other machines, and nothing is encrypted",
                hint="give --tls-cert and --tls-key, or --insecure behind what encrypts",
            )
        node = stack.enter_context(endpoints.Node(session))
        log = stack.enter_context(RequestLog("text" if log_format == "text" else "json"))
        found = server.Server(
            server.application(node.endpoints(), hosts, log),
            session.config.courier_timeout_secs,
            log,
            tls,
            node.save_prices,
            manager,
        )
        urls = [listening.url_of(each, secure=tls is not None) for each in sockets]
        says = "could serve on" if check else "serving on"
        document = {"url": urls[0], "urls": urls, "market_id": node.market_id.hex()}
        emit(session, document, [f"{says} {url}" for url in urls])
        sys.stdout.flush()
        if not check:
            price_board.load(session)
            found.run(sockets)
            session.save_prices()  # What is told of that is for the log.
