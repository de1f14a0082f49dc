"""`tb-cli serve`: what other markets send is taken in over HTTP."""

import sys

from compute_market.errors import UsageError
from tb_cli.frame.render import emit
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import flag, option, takes


@takes(
    option("--host", "Where to listen.", metavar="HOST", default="127.0.0.1"),
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
    flag("--check", help="Say whether it could serve, and end."),
)
def serve(
    session: Session,
    *,
    host: str,
    port: int,
    tls_cert: str | None,
    tls_key: str | None,
    insecure: bool,
    check: bool,
) -> None:
    """Bundles and scores are taken from whoever signs with a key in `[net] trusted`. It ends with
    SIGTERM or Ctrl-C once what is under way is done. Each request leaves a line of JSON on stderr.
    """
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together")
    secure = tls_cert is not None
    session.home.check_market()
    try:
        from tb_cli.network import endpoints, listening, server
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
    with endpoints.Node(session) as node, RequestLog() as log:
        app = server.application(node.endpoints(), hosts, log)
        found = server.Server(app, session.config.courier_timeout_secs, log, tls, node.save_prices)
        with listening.listen(host, port) as opened:
            url = listening.url_of(opened, secure=secure)
            text = f"could serve on {url}" if check else f"serving on {url}"
            emit(session, {"url": url, "market_id": node.market_id.hex()}, text)
            sys.stdout.flush()
            if not check:
                price_board.load(session)
                found.run(opened)
                session.save_prices()  # What is told of that is for the log.
