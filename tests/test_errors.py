"""Errors: their texts can be written anywhere."""

import pytest

from compute_market.errors import (
    EXIT_CODES,
    ConflictError,
    MarketError,
    UsageError,
    check_same,
    exit_code,
)


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


def test_every_kind_of_error_is_a_row_of_the_table() -> None:
    for kind in MarketError.__subclasses__():
        if kind.token != "internal":
            assert kind.exit_code == exit_code(kind.token)
    assert [row.code for row in EXIT_CODES] == list(range(len(EXIT_CODES)))


def test_check_same_names_the_first_field_that_differs() -> None:
    stored = {"a": 1, "b": 2, "c": 3}
    check_same("job j", stored, {"c": 3, "a": 1})
    with pytest.raises(ConflictError) as caught:
        check_same("job j", stored, {"a": 1, "c": 4, "b": 9}, hint="use another job id")
    assert caught.value.message == "job j exists with c 3, not 4"
    assert (caught.value.hint, caught.value.details) == ("use another job id", {"field": "c"})
