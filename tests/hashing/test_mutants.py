"""Mistakes in the CUDA backend are noticed without a GPU."""

from pathlib import Path

import pytest

from tests.support.cli import without
from tests.support.effort import TORTURE
from tests.support.gpu.mutants import EDITS, ROOT, Edit, applied, copied, is_caught


def test_every_edit_can_be_made() -> None:
    assert len(EDITS) >= 27
    assert len({edit.name for edit in EDITS}) == len(EDITS)
    for edit in EDITS:
        path, wrong = applied(edit, ROOT)
        compile(wrong, str(path), "exec")


@pytest.mark.skipif(not TORTURE, reason="each takes half a minute")
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_edit_is_caught(edit: Edit, tmp_path: Path) -> None:
    if reason := without("g++"):
        pytest.skip(reason)
    assert is_caught(edit, copied(tmp_path))
