"""What Prometheus scrapes: every metric of the market, in the format that is asked for."""

from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from compute_market import exposition
from tb_cli.frame.exposition import files_of
from tb_cli.network import answers
from tb_cli.network.node import Node


class Metrics:
    """A scrape is a look as any other: it waits for nobody, and counts as nothing.

    The price board is the one that the server has loaded, and what the store has since.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    async def answer(self, request: Request) -> Response:
        files = await run_in_threadpool(files_of, self._node.session)
        accept = ",".join(request.headers.getlist("accept"))
        render = partial(exposition.render_for, accept=accept, files=files)
        text, content_type = await self._node.look(render)
        headers = answers.HEADERS | {"content-type": content_type, "vary": "Accept"}
        return Response(text, headers=headers)
