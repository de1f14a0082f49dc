"""What is wrong with a command line, told in the operator's terms and with a way out."""

from collections.abc import Iterable, Sequence
from shlex import join
from typing import Any

from compute_market.errors import UsageError
from compute_market.text import clipped, did_you_mean
from tb_cli.frame.options import DRY_RUN, GLOBAL, JSON
from tb_cli.frame.values import called
from tb_cli.frame.verbs import Group, Parameter, Verb, parameters_of

_SHOWN_MAX = 100  # characters of a command line that a hint spells out


def usage_error(error: Any, tree: Group, arguments: Sequence[str]) -> UsageError:
    """What an error of the parser says: it is known by its kind, and has what it is about."""
    path, node = _reached(tree, arguments)
    see = f"see `{' '.join(('tb-cli', *path))} --help`"
    kind = type(error).__name__
    if kind == "NoSuchOption":
        return no_such_option(error.option_name, tree, arguments)
    extra = error.message.partition(" (")[2][:-1]
    behind = _behind_dashes(node, arguments)
    if behind is not None and (extra or kind == "MissingParameter"):
        return UsageError(
            f"{behind} stands behind --, where it is a value and no option",
            hint="options stand before --",
        )
    if kind == "MissingParameter":
        named = {each.name: each for each in options_of(node)}
        return UsageError(f"{called(named[error.param.name])} is missing", hint=see)
    if kind == "BadOptionUsage":
        problem = "takes no value" if "not take" in error.message else "is given without a value"
        return UsageError(f"{clipped(error.option_name)} {problem}", hint=see)
    for word in arguments if extra else ():
        if word[:1] == "-" and (moved := _moved(word, tree, arguments)) is not None:
            return _stands_before(word, moved)
    if extra:
        return UsageError(f"unexpected argument {clipped(extra)!a}", hint=see)
    return UsageError(error.format_message(), hint=see)


def no_such_command(word: str, group: Group, path: str, tree: Group) -> UsageError:
    """A word that is no command: the nearest is named, of its name in other groups first."""
    found = [" ".join(("tb-cli", *each)) for each in _paths(tree) if each[-1] == word][:3]
    if not found:
        from difflib import get_close_matches

        found = [f"{path} {each}" for each in get_close_matches(word, group.commands, 1)]
    if not found and group is tree:
        from difflib import get_close_matches

        names = {each[-1]: each for each in _paths(tree)}
        near = get_close_matches(word, names, 1, 0.75)
        found = [" ".join(("tb-cli", *names[each])) for each in near]
    commands = " or ".join(f"`{each}`" for each in found)
    return UsageError(
        f"No such command {clipped(word)!a}.",
        hint=f"did you mean {commands}?" if found else f"see `{path} --help`",
    )


def options_of(node: Verb | Group) -> tuple[Parameter, ...]:
    """Arguments and options of a verb, or what may stand before one."""
    if isinstance(node, Group):
        return (JSON, *GLOBAL)
    own = parameters_of(node.function())
    return (*own, DRY_RUN, JSON, *GLOBAL) if node.writes else (*own, JSON, *GLOBAL)


def no_such_option(word: str, tree: Group, arguments: Sequence[str]) -> UsageError:
    """A word that is no option there: the nearest is named, or where it does belong."""
    moved = _moved(word, tree, arguments)
    if moved is not None:
        return _stands_before(word, moved)
    path, node = _reached(tree, arguments)
    spelled = [text for each in options_of(node) for text in _spellings(each)]
    names = [text.removeprefix("--") for text in spelled if text.startswith("--")]
    near = did_you_mean(word.lstrip("-"), names) if len(word.lstrip("-")) > 1 else None
    command = " ".join(("tb-cli", *path))
    hint = f"see `{command} --help`" if near is None else near.replace("mean ", "mean --")
    if word[1:2].isdigit():
        hint = f"write {clipped(f'-- {word}')} for a value that begins with -"
    return UsageError(f"`{command}` has no option {clipped(word)}", hint=hint)


def _behind_dashes(node: Verb | Group, arguments: Sequence[str]) -> str | None:
    """The first word that would be an option of the command, stood it not behind `--`."""
    words = list(arguments)
    values = words[words.index("--") + 1 :] if "--" in words else []
    spelled = {text for each in options_of(node) for text in _spellings(each)}
    return next((word for word in values if word.partition("=")[0] in spelled), None)


def _stands_before(word: str, moved: Sequence[str]) -> UsageError:
    line = clipped(join(("tb-cli", *moved)), _SHOWN_MAX)
    return UsageError(f"{word} stands before the command", hint=f"it goes after it: `{line}`")


def _moved(word: str, tree: Group, arguments: Sequence[str]) -> list[str] | None:
    """The line with an option of its verb behind it that stood before; None if it is none."""
    words = list(arguments)
    if word not in words:
        return None
    at = words.index(word)
    for end in (at + 1, at + 2):
        rest = words[:at] + words[end:]
        path, node = _reached(tree, rest)
        if isinstance(node, Verb) and at < len(rest) and path[-1] in rest[at:]:
            for each in options_of(node):
                if word in _spellings(each) and (each.kind == "flag") == (end == at + 1):
                    return [*rest, *words[at:end]]
    return None


def _reached(tree: Group, arguments: Iterable[str]) -> tuple[list[str], Verb | Group]:
    """The command that a line names, as far as it does, and its path."""
    node: Verb | Group = tree
    path: list[str] = []
    for word in arguments:
        if not isinstance(node, Group):
            break
        if word in node.commands:
            node = node.commands[word]
            path.append(word)
        elif node.default is not None:
            path.append(node.default)
            node = node.commands[node.default]
    return path, node


def _spellings(parameter: Parameter) -> tuple[str, ...]:
    opposite = parameter.opposite
    return parameter.spellings if opposite is None else (*parameter.spellings, opposite)


def _paths(tree: Group) -> Iterable[tuple[str, ...]]:
    for name, node in tree.commands.items():
        yield (name,)
        if isinstance(node, Group):
            yield from ((name, *below) for below in _paths(node))
