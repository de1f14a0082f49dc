"""Options of a job as they are meant: its deadline a second, its slices by whole paths."""

import os
from typing import Any

from compute_market.errors import UsageError
from tb_cli.frame.clocks import now_ms


def as_meant(given: dict[str, Any]) -> dict[str, Any]:
    """Options of a job with its deadline as a unix second, and with the paths of slices made whole:
    they are relative to where the command runs. Raises UsageError for what they cannot be.
    """
    if "deadline" in given:
        found = deadline_of(given["deadline"], is_other_given="deadline_secs" in given)
        given = given | {"deadline": found}
    if "slices" not in given:
        return given
    if "" in given["slices"]:
        raise UsageError("--slice is empty", hint="name a file")
    return given | {"slices": [os.path.abspath(path) for path in given["slices"]]}


def deadline_of(text: str, *, is_other_given: bool) -> int:
    """The unix second that --deadline stands for. Raises UsageError beside --deadline-secs."""
    if is_other_given:
        raise UsageError("--deadline and --deadline-secs are both given", hint="give one of them")
    from tb_cli.frame.times import deadline  # Most deadlines are told in seconds, if at all.

    return deadline(text, "--deadline", now_ms())
