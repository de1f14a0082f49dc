"""Scores that other markets tell. Whoever sends is known by a signature, which authorises it."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from compute_market.errors import UsageError
from compute_market.offers import standing
from compute_market.reputation import gossip
from compute_market.rpc import Scores
from tb_cli.network import answers
from tb_cli.network.node import Node


async def listen(node: Node, request: Request, params: Scores) -> dict[str, int]:
    """Take what is news in a message of scores; what is signed is looked at before the change.

    Raises RefusedError and IntegrityError for what is not believed.
    """
    try:
        text = params.message.encode()
    except UnicodeEncodeError as error:
        raise UsageError("the message is no text") from error
    await node.glance(gossip.check_listening)
    message = await run_in_threadpool(gossip.parse, text)
    await run_in_threadpool(gossip.verify, message, node.session.config.net_trusted)
    applied = await node.update(lambda txn: standing.take_gossip(txn, message))
    if applied.ahead or applied.outside:
        answers.tell(request, f"{len(message.entries)} scores: {applied.text}")
    return {
        "applied": applied.applied,
        "ignored": applied.ignored,
        "from_the_future": applied.ahead,
    }
