"""Settings as they are shown."""

import pytest

from compute_market.config.files import load
from compute_market.config.rows import SETTINGS
from compute_market.config.shown import default_of, describe, near_variable, setting_of
from compute_market.errors import UsageError


def test_describe_shows_every_setting_as_a_file_and_as_json_has_it() -> None:
    rows = describe(
        *load(
            "settle_mode = 'real'\nburst_quota = '2.5'\nenable_preempt = true\n",
            "f",
            {"TB_EPOCH_BLOCKS": "9"},
        )
    )
    assert [row.name for row in rows] == [setting.name for setting in SETTINGS]
    found = {row.name: row[1:] for row in rows}
    assert found["settle_mode"] == ('"real"', "real", "f:1")
    assert found["burst_quota"] == ("2.5", 2.5, "f:2")
    assert found["enable_preempt"] == ("true", True, "f:3")
    assert found["epoch_blocks"] == ("9", 9, "TB_EPOCH_BLOCKS")
    assert found["fair_share_cap"] == ("0.25", 0.25, "default")
    assert found["scheduler.slots"] == ("64", 64, "default")
    assert found["net.peers"] == ("[]", [], "default")


def test_default_is_told_of_a_setting() -> None:
    assert default_of(setting_of("burst_quota"))[1:] == ("30.0", 30.0, "default")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("slots", "did you mean scheduler.slots?"),
        ("min_capcity", "did you mean min_capacity?"),
        ("", "`config show` lists every key"),
        ("x" * 500, "`config show` lists every key"),
    ],
)
def test_key_that_is_none_is_told_the_nearest(key: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        setting_of(key)
    assert caught.value.hint == hint
    assert len(caught.value.message) < 100


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("TB_SLOTS", "TB_SCHEDULER_SLOTS"),
        ("TB_MIN_CAPCITY", "TB_MIN_CAPACITY"),
        ("TB_SETTLEMENT_MODE", "TB_SETTLE_MODE"),
        ("TB_", None),
        ("TB_ZZZ", None),
    ],
)
def test_variable_that_names_no_setting_is_told_the_nearest(name: str, near: str | None) -> None:
    assert near_variable(name) == near
