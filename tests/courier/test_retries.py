"""How long a flush waits between attempts."""

from random import Random

import pytest

from compute_market.courier.retries import JITTER_PCT, WAIT_MS_MAX, wait_ms


def least(count: int) -> int:
    assert count >= 1
    return 0


def most(count: int) -> int:
    return count - 1


def test_waits_double_from_the_base_on() -> None:
    assert [wait_ms(100, n, least) for n in (1, 2, 3, 4)] == [100, 200, 400, 800]


def test_jitter_adds_a_quarter_at_most() -> None:
    assert [wait_ms(100, n, most) for n in (1, 2, 3, 4)] == [125, 250, 500, 1000]
    drawn = {wait_ms(100, 1, Random(seed).randrange) for seed in range(300)}
    assert drawn <= set(range(100, 126))
    assert len(drawn) > 20
    assert JITTER_PCT == 25


@pytest.mark.parametrize("failures", [20, 64, 1000, 10**9])
def test_no_wait_is_longer_than_an_hour_and_its_jitter(failures: int) -> None:
    assert wait_ms(100, failures, least) == WAIT_MS_MAX
    assert wait_ms(3_600_000, failures, most) == WAIT_MS_MAX * 5 // 4


def test_base_of_zero_never_waits() -> None:
    assert {wait_ms(0, n, most) for n in range(1, 100)} == {0}
