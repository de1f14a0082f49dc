"""The plain way in: it reads a line that holds only what a verb declares, without the parser.

Importing the parser takes longer than all the rest of most commands. What is read here means what
the parser would make of it. Whatever else a line holds, help, a value that is wrong or an option
that is not spelled out among it, is the parser's to answer.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from compute_market.errors import UsageError
from tb_cli.frame.command import perform
from tb_cli.frame.options import DRY_RUN, GLOBAL, JSON
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import (
    Group,
    Parameter,
    Verb,
    default_of,
    made_parameters_of,
    parameters_of,
    with_bare_values,
)

_DIGITS_MAX = 19  # of a number: more would be out of every range


# A line that has been read: the verb, its function, what it takes, and what holds for every verb.
Line = tuple[Verb, Callable[..., int | None], dict[str, Any], dict[str, Any]]


def run(tree: Group, arguments: list[str], batch: Session | None = None) -> int | None:
    """Run a plainly spelled line to its exit code, or return None: not for here."""
    if os.environ.get("_TB_CLI_COMPLETE"):
        return None
    line = read(tree, arguments)
    return None if line is None else perform(*line, batch, arguments)


def read(tree: Group, arguments: list[str]) -> Line | None:
    """What a line asks for, or None if it is not plain."""
    words = iter(arguments)
    node: Verb | Group | None = tree
    settings: dict[str, Any] = {}
    ahead: list[str] = []  # the first word of a command that went without saying
    while isinstance(node, Group):
        word = next(words, "")
        if node is tree and word[:1] == "-":
            if not _take(_spelled(GLOBAL), word, words, settings):
                return None
        elif node.default is not None and (not word or word[:1] == "-"):
            ahead = [word] if word else []
            node = node.commands[node.default]
        else:
            node = node.commands.get(word)
    if node is None:
        return None
    function = node.function()
    left = [*ahead, *words]
    own = parameters_of(function) if _has_options(left) else made_parameters_of(function)
    shared = (JSON, DRY_RUN, *GLOBAL) if node.writes else (JSON, *GLOBAL)
    given = _given((*own, *shared), left)
    if given is None:
        return None
    for parameter in shared:
        if parameter.name in given:
            settings[parameter.name] = given[parameter.name]
    values = {each.name: given.get(each.name, default_of(each)) for each in own}
    return node, function, values, settings


def _given(parameters: Iterable[Parameter], words: list[str]) -> dict[str, Any] | None:
    """The values of what was given, or None if the words are not plain or something is missing."""
    found: dict[str, Any] = {}
    if _has_options(words):
        words = with_bare_values(parameters, words)
        spelled = _spelled(parameters)
        has_signed = any(each.kind == "signed" for each in parameters)
        rest = iter(words)
        words = []
        for word in rest:
            if word[:1] != "-" or word == "-" or (has_signed and _is_digits(word[1:])):
                words.append(word)
            elif not _take(spelled, word, rest, found):
                return None
    for parameter in parameters:
        if parameter.spellings or not words:
            pass
        elif parameter.many:
            if "" in words and parameter.path is not None:
                return None
            found[parameter.name], words = words, []
        else:
            value = _value(parameter, words.pop(0))
            if value is None:
                return None
            found[parameter.name] = value
        if parameter.required and parameter.name not in found:
            return None
    return None if words else found


def _has_options(words: list[str]) -> bool:
    """Whether one may be an option. There may be ten thousand, which are searched at once."""
    return "\0-" in "\0".join(["", *words])


def _take(
    spelled: dict[str, Parameter], word: str, rest: Iterator[str], found: dict[str, Any]
) -> bool:
    """Put the value of an option into `found`, and return whether it is plain."""
    parameter = spelled.get(word)
    if parameter is None:
        return False
    if parameter.kind == "flag":
        found[parameter.name] = word != parameter.opposite
        return True
    text = next(rest, None)
    # The parser takes whatever comes next for the value, and what is no number is told by it.
    value = None if text is None else _value(parameter, text)
    if parameter.many:
        found.setdefault(parameter.name, []).append(value)
    elif parameter.name in found:
        return False
    else:
        found[parameter.name] = value
    return value is not None


def _spelled(parameters: Iterable[Parameter]) -> dict[str, Parameter]:
    spelled = {text: each for each in parameters for text in each.spellings}
    return spelled | {each.opposite: each for each in parameters if each.opposite is not None}


def _value(parameter: Parameter, text: str) -> Any:
    """What a text stands for, or None if it is for the parser to judge."""
    if parameter.kind == "text":
        if not text and parameter.path is not None:
            return None
        return text if not parameter.choices or _are_choices(parameter, text) else None
    if parameter.kind == "choice":
        return text if text in parameter.choices else None
    sign = text[:1] if parameter.kind == "signed" and text[:1] in ("+", "-") else ""
    whole, dot, fraction = text[len(sign) :].partition(".")
    if parameter.unit is not None and not text.isdigit() and not dot:
        return _quantity(parameter, text)
    if not _is_digits(whole) or (dot and not _is_digits(fraction)):
        return None
    if parameter.kind == "number":
        value: float = float(text)
    elif dot:
        return None
    else:
        value = int(text)  # With its sign.
    if (parameter.least is not None and value < parameter.least) or (
        parameter.most is not None and value > parameter.most
    ):
        return None
    return value


def _are_choices(parameter: Parameter, text: str) -> bool:
    from tb_cli.frame.values import chosen_of  # Few options have several values.

    return set(chosen_of(parameter, text)) <= set(parameter.choices)


def _quantity(parameter: Parameter, text: str) -> int | None:
    from tb_cli.frame.values import value_of  # Most numbers are digits.

    try:
        value: int = value_of(parameter, text)
    except UsageError:
        return None
    return value


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX
