"""A command that has been read, run to its exit code."""

from collections.abc import Callable
from typing import Any

from tb_cli.frame import guard
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import Verb, bound, made_parameters_of


def perform(
    verb: Verb,
    function: Callable[..., int | None],
    values: dict[str, Any],
    settings: dict[str, Any],
    batch: Session | None,
    command: list[str],
) -> int:
    """Run a verb to its exit code. Each of its parameters has a value.

    `command` is the line as it was given, for the log.
    """
    with Session.begin(settings, verb.market, batch, command) as session:
        guard.show_amounts(as_text=session.amounts_are_text)
        acts = verb.changes(values) and not session.dry_run
        if acts:
            guard.spare_output()
        try:
            code = function(session, **bound(made_parameters_of(function), values)) or 0
        except guard.OutputLost:
            code = 0
        return guard.finished(code, acts=acts)
