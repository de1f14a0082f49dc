"""Times as people write them, and as a terminal shows them."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from compute_market.errors import UsageError
from tb_cli.frame.times import instant, local, relative

NOW_MS = int(datetime(2026, 11, 27, 3, 30, tzinfo=UTC).timestamp() * 1000)
MINUTE = 60_000


@pytest.fixture(params=["UTC", "Asia/Kolkata", "America/New_York"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "ago_ms"), [("90s", 90_000), ("1h", 60 * MINUTE), ("3d", 72 * 60 * MINUTE), ("0", 0)]
)
def test_duration_is_so_long_ago(text: str, ago_ms: int) -> None:
    assert instant(text, "--since", NOW_MS) == NOW_MS - ago_ms


def test_duration_longer_than_time_is_its_beginning() -> None:
    assert instant("999999999999d", "--since", NOW_MS) == 0


def test_bare_number_is_what_pipes_print_from_a_billion_on() -> None:
    for text, expected in (
        *(("999999999", NOW_MS - 999_999_999_000), ("1000000000", 10**12)),
        *((str(NOW_MS // 1000), NOW_MS), (str(NOW_MS + 250), NOW_MS + 250)),
        *(("999999999999 ago", 0), ("253402300799", 253_402_300_799_000)),
    ):
        assert instant(text, "--since", NOW_MS) == expected, text


def test_date_and_time_are_those_of_the_machine(zone: str) -> None:
    for text in ("2026-11-27T02:15:30", "2026-11-27 02:15:30"):
        at = instant(text, "--since", NOW_MS)
        assert time.localtime(at / 1000)[:6] == (2026, 11, 27, 2, 15, 30)
    assert time.localtime(instant("2026-11-27", "--since", NOW_MS) / 1000)[:5] == (
        *(2026, 11, 27, 0, 0),
    )


def test_date_and_time_may_name_their_zone(zone: str) -> None:
    assert instant("2026-11-27T03:30:00Z", "--since", 0) == NOW_MS
    assert instant("2026-11-27T05:30:00.250+02:00", "--since", 0) == NOW_MS + 250


def test_time_alone_is_of_today(zone: str) -> None:
    today = time.localtime(NOW_MS / 1000)[:3]
    for text, expected in (("03:00", (3, 0, 0)), ("23:59:59", (23, 59, 59)), ("00:00", (0, 0, 0))):
        found = time.localtime(instant(text, "--since", NOW_MS) / 1000)
        assert (found[:3], found[3:6]) == (today, expected)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "soon", "yesterday", "25:00", "03:60", "3:00", "1e3", "2026-02-30", "2026-11"),
        *("2026-11-27T", "99999-01-01", "-5m", "nan", "\x00", "\udcff", "x" * 1000),
        *("999999999999", "253402300800", "253402300800000", "9" * 16, "1795898840.5"),
    ],
)
def test_no_time_is_an_error_that_names_the_option(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--until: ") as caught:
        instant(text, "--until", NOW_MS)
    assert len(caught.value.message) < 100
    assert caught.value.message.isprintable()
    assert caught.value.hint is not None
    assert "03:00" in caught.value.hint


def test_instant_is_shown_in_the_zone_of_the_machine(zone: str) -> None:
    shown = {
        "UTC": "2026-11-27 03:30:00",
        "Asia/Kolkata": "2026-11-27 09:00:00",
        "America/New_York": "2026-11-26 22:30:00",
    }
    assert local(NOW_MS + 999) == shown[zone]
    # What is shown can be given back.
    assert instant(local(NOW_MS), "--since", 0) == NOW_MS


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        *((0, "0s ago"), (-12, "12s ago"), (-119, "119s ago"), (-120, "2m ago")),
        *((-7199, "119m ago"), (-7200, "2h ago"), (-172_800, "2d ago")),
        *((1, "in 1s"), (86_400, "in 24h"), (86_399, "in 23h"), (10**9, "in 11574d")),
    ],
)
def test_moment_is_shown_as_how_long_ago_or_until(seconds: int, shown: str) -> None:
    assert relative(10**9 + seconds, 10**9) == shown
