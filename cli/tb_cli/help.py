"""`tb-cli help`: the page of a command, or of a topic that many commands share."""

from compute_market.errors import UsageError
from compute_market.text import clipped, did_you_mean
from tb_cli.frame.help_page import is_bold, page
from tb_cli.frame.render import emit
from tb_cli.frame.session import Session
from tb_cli.frame.topics import TOPICS
from tb_cli.frame.usage import no_such_command
from tb_cli.frame.verbs import Group, Verb, argument, examples, takes
from tb_cli.tree import TREE


@takes(
    argument(
        "words",
        "[COMMAND…|TOPIC]",
        f"A command as it is typed, or one of {', '.join(TOPICS)}.",
        required=False,
        many=True,
        complete="topic",
    )
)
@examples("tb-cli help compute cancel", "tb-cli help exit-codes")
def help_(session: Session, words: list[str]) -> None:
    """Alone it shows what there is."""
    if len(words) == 1 and words[0] not in TREE.commands and words[0] not in TOPICS:
        near = did_you_mean(words[0], (*TOPICS, *TREE.commands))
        shown = clipped(words[0])
        raise UsageError(f"No such command or topic {shown!a}.", hint=near or "see `tb-cli help`")
    if len(words) == 1 and words[0] in TOPICS:
        text = TOPICS[words[0]].text()
    else:
        text = page(words, _node(words), bold=session.color and is_bold(words))
    emit(session, {"help": " ".join(words), "text": text}, text.rstrip("\n").split("\n"))


def _node(words: list[str]) -> Verb | Group:
    node: Verb | Group = TREE
    for index, word in enumerate(words):
        if not isinstance(node, Group):
            raise UsageError(f"unexpected argument {clipped(word)!a}")
        path = " ".join(("tb-cli", *words[:index]))
        if word not in node.commands:
            raise no_such_command(word, node, path, TREE)
        node = node.commands[word]
    return node
