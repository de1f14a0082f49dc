"""A home of an older schema is read as it is, and those who look seldom keep others from writing.

Each look takes the write lock, and as long as reading all jobs: it brings the home up to date for
itself, and throws that away.
"""

import time
from collections.abc import Callable

import pytest

from tb_cli.frame import looks, paging
from tests.support.cli import Cli, Prepared
from tests.support.listed import fill
from tests.support.older import aged

pytest_plugins = ("tests.support.cli",)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("full"), fill)


@pytest.fixture
def shop(cli: Cli, full: Prepared) -> Cli:
    full.copy_to(cli)
    return cli


class Passing:
    """Time that passes where somebody sleeps, and what happens when it has come to an instant."""

    def __init__(self, ends_s: float) -> None:
        self.now_s = 0.0
        self.ends_s = ends_s
        self.due: list[tuple[float, Callable[[], object]]] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s > self.ends_s:
            raise KeyboardInterrupt
        for each in [each for each in self.due if each[0] <= self.now_s]:
            self.due.remove(each)
            each[1]()


def passing(patch: pytest.MonkeyPatch, ends_s: float) -> Passing:
    found = Passing(ends_s)
    patch.setattr(time, "monotonic", found.monotonic)
    patch.setattr(time, "sleep", found.sleep)
    return found


def test_list_of_an_old_home_brings_it_up_to_date_once_and_for_itself_alone(
    shop: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many pages it has: an upgrade takes as long as reading all jobs."""
    of_today = shop.ok("compute", "list", "--all")
    assert of_today.count("\n") > 3

    found = aged(shop, monkeypatch)
    before = shop.files()
    monkeypatch.setattr(paging, "PAGE", 1)
    assert shop.ok("compute", "list", "--all") == of_today
    assert (found, shop.files() == before) == ([7], True)
    shop.ok("tick")
    assert found == [7, 7]


def test_waiting_looks_again_only_when_something_has_changed(
    shop: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = aged(shop, monkeypatch)
    time_ = passing(monkeypatch, 1000)
    done = shop("compute", "wait", "render-1", "--timeout", "50")
    assert (done.code, found) == (10, [7, 7])
    assert time_.now_s == pytest.approx(50, abs=1)
    assert done.err.count("the market is of schema 7, and looked at when something has") == 1
    assert done.err.count("`tb-cli tick` brings it up to date") == 1


def test_waiting_sees_what_others_change(shop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has been brought up to date it is looked at as ever."""
    found = aged(shop, monkeypatch)
    time_ = passing(monkeypatch, 1000)
    time_.due.append((20, lambda: shop.process("compute", "cancel", "render-1")))
    done = shop("compute", "wait", "render-1", "--for", "ended")
    assert (done.code, done.out) == (0, "job render-1 cancelled\n")
    assert found == [7]
    assert time_.now_s == pytest.approx(20, abs=1.5)


@pytest.mark.parametrize(
    "line", ["compute list --watch 2 -q", "log --follow", "compute queue --watch 0.5 --json"]
)
def test_watching_lets_others_write(shop: Cli, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    found = aged(shop, monkeypatch)
    passing(monkeypatch, 3 * looks._OLDER_MOST_S - 1)
    assert shop(*line.split()).code == 130
    assert 3 <= len(found) <= 5
    # However often something changes.
    found.clear()
    time_ = passing(monkeypatch, 30)
    number = iter(range(10**6))
    monkeypatch.setattr("compute_market.store.changes.last_commit", lambda store: next(number))
    assert shop(*line.split()).code == 130
    assert time_.now_s / looks._OLDER_LEAST_S - 2 <= len(found) <= 30 / looks._OLDER_LEAST_S + 3


def test_several_ids_are_looked_for_at_once(shop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ("render-1", "none", "render-2", "-", "render-3")
    stdin = "# more\nrender-4\na b\n"
    before = shop("compute", "status", *ids, "--json", stdin=stdin)
    assert (before.code, len(before.json)) == (7, 4)
    found = aged(shop, monkeypatch)
    assert shop("compute", "status", *ids, "--json", stdin=stdin) == before
    assert found == [7]
