"""Errors: their texts can be written anywhere."""

import pytest

from compute_market.errors import UsageError


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain", "plain"),
        ("grüße\n", "grüße\n"),
        ("bad\udcff", "bad\\xff"),
        ("ü\udcff", "ü\\xff"),
        # These halves stand for no byte.
        ("bad\ud800", "bad\\ud800"),
        ("\ud800\udcff", "\\ud800\\udcff"),
    ],
)
def test_error_is_legible(text: str, written: str) -> None:
    error = UsageError(text, hint=text)
    document = error.document()
    assert (str(error), document["message"], document["hint"]) == (written, written, written)


def test_error_without_a_hint_has_none() -> None:
    assert UsageError("text").document()["hint"] is None
