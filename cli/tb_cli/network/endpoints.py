"""What a market answers over HTTP: the function of each method of each path."""

from starlette.requests import Request
from starlette.responses import Response

from compute_market import chain, rpc
from tb_cli.network import answers, destinations
from tb_cli.network.bundles_endpoint import Bundles
from tb_cli.network.metrics_endpoint import Metrics
from tb_cli.network.node import Node
from tb_cli.network.openapi import description
from tb_cli.network.pages.routes import Pages
from tb_cli.network.readiness import Readiness
from tb_cli.network.rpc_endpoint import Rpc
from tb_cli.network.server import Endpoint


def endpoints_of(node: Node) -> dict[str, dict[str, Endpoint]]:
    """By path and by HTTP method. A path that is here answers any other method with 405."""
    calls = Rpc(node)
    found: dict[str, dict[str, Endpoint]] = {
        "/": {"POST": calls.post},
        "/healthz": {"GET": _Health(node).answer},
        "/metrics": {"GET": Metrics(node).answer},
        "/readyz": {"GET": Readiness(node.session).answer},
        "/openapi.json": {"GET": _describe},
    }
    for method in rpc.METHODS.values():
        found[f"/{method.name}"] = {"GET": calls.reader(method)} if method.reads else {}
    for path, page in Pages(node).endpoints().items():
        found.setdefault(path, {})["GET"] = page
    found[destinations.PATH] = {"POST": Bundles(node).deliver}
    return found


class _Health:
    def __init__(self, node: Node) -> None:
        self._node = node

    async def answer(self, request: Request) -> Response:
        await self._node.glance(chain.market_id)
        return answers.json_response({"status": "ok", "market_id": self._node.market_id.hex()})


async def _describe(request: Request) -> Response:
    return answers.json_bytes(description())
