"""The pages in a real browser: readable by whoever looks, listens or types; renewed by themselves;
and with nothing on them that is not ours."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tb_cli.network.pages import documents
from tests.serve.market import HARM, PAGES, busy_server, submitted
from tests.support.cli import without
from tests.support.effort import TORTURE, sample
from tests.support.serving import Serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NEEDED = ("chromium", "python:playwright", "python:axe_playwright_python")
pytestmark = pytest.mark.skipif(
    without(*_NEEDED) is not None, reason=without(*_NEEDED) or "all is installed"
)

_WIDE = {"width": 1280, "height": 900}
_PHONE = {"width": 360, "height": 740}
_PERIOD_MS = 5_000


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with pytest.MonkeyPatch.context() as patch:
        for name, rows in (("FEW", 3), ("SOME", 4), ("MANY", 8)):
            patch.setattr(documents, name, rows)  # Every rule looks at every row.
        with busy_server(tmp_path_factory.mktemp("browser")) as found:
            yield found


@pytest.fixture(scope="module")
def browser(far: Serving) -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield found
        found.close()


class Window:
    """A page of the browser, and all that it complains of."""

    def __init__(self, page: "Page", url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda said: self.complaints.append(said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))

    def open(self, path: str) -> None:
        self.page.goto(self.url + path, wait_until="load")

    def focused(self) -> str:
        """What has the focus: the address of a link, or the id of anything else."""
        script = "(e => e.getAttribute('href') ?? e.id)(document.activeElement)"
        found: str = self.page.evaluate(script)
        return found

    def turn(self) -> None:
        """Let so much time pass that the page renews itself, and wait until it has."""
        with self.page.expect_response(lambda response: response.url == self.page.url):
            self.page.clock.run_for(_PERIOD_MS)

    def reaches(self, script: str) -> None:
        """Wait until something is true of the page. The clock of the page stands still."""
        self.page.wait_for_function(script, polling=50, timeout=10_000)


@pytest.fixture
def window(browser: "Browser", far: Serving) -> Iterator[Window]:
    context = browser.new_context(viewport=_WIDE)  # type: ignore[arg-type]
    found = Window(context.new_page(), far.url)
    yield found
    context.close()
    assert found.complaints == []
    assert all(url.startswith(far.url) for url in found.asked)


def test_pages_are_clean_in_light_and_dark(
    window: Window, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By axe-core's rules. Where all are tried pictures of them are left, to be looked at."""
    from axe_playwright_python.sync_playwright import Axe

    pictures = tmp_path_factory.mktemp("pictures")
    axe = Axe()
    page = window.page
    for name, path in [("overview", "/"), *sample(PAGES.items(), 1)]:
        window.open(path)
        for scheme in ("light", "dark") if TORTURE or path == "/" else ("light",):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            if TORTURE:
                page.screenshot(path=pictures / f"{name} {scheme}.png", full_page=True)
            rules: dict[str, Any] = {"resultTypes": ["violations"]}
            if scheme == "dark":  # Only colours are others.
                rules["runOnly"] = ["color-contrast", "link-in-text-block"]
            found = axe.run(page, options=rules)
            assert found.violations_count == 0, f"{path} {scheme}: {found.generate_report()}"
            assert found.response["url"] == page.url


def test_every_page_fits_a_phone_and_a_desk(window: Window) -> None:
    """Nothing has to be scrolled sideways to be seen, whatever ids and amounts a table has."""
    hidden = """[document.documentElement, ...document.querySelectorAll('.scroll')]
        .filter(each => each.scrollWidth > each.clientWidth + 1)
        .map(each => each.getAttribute('aria-label') ?? 'page')"""
    for path in ("/", "/offers", *sample(PAGES.values(), 4)):
        window.open(path)
        for size in (_PHONE, _WIDE):
            window.page.set_viewport_size(size)  # type: ignore[arg-type]
            assert window.page.evaluate(hidden) == [], (path, size)


def test_keyboard_reaches_everything_in_order(window: Window) -> None:
    window.open("/jobs")
    page = window.page
    visited = []
    for _ in range(40):
        page.keyboard.press("Tab")
        focused, width, top, outline = page.evaluate(
            "(e => [e.getAttribute('href') ?? e.id, e.getBoundingClientRect().width,"
            " e.getBoundingClientRect().top, getComputedStyle(e).outlineStyle])"
            "(document.activeElement)"
        )
        visited.append(focused)
        assert width > 1, visited
        assert top >= 0, visited
        assert outline == "solid", visited
    assert visited[:4] == ["#main", "/", "/", "/jobs"]
    assert "pause" in visited
    assert visited.index("pause") < visited.index("/jobs/handed")
    # The first link skips what is the same on each page, and Enter opens one of a table.
    window.open("/jobs")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert window.focused() == "main"
    while window.focused() != "/jobs/handed":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/handed")
    assert page.get_by_role("heading", level=1).inner_text() == "Job handed"


def test_page_renews_itself_and_leaves_the_reader_alone(window: Window, far: Serving) -> None:
    page = window.page
    page.set_viewport_size({"width": 1280, "height": 400})
    page.clock.install()
    window.open("/jobs")
    link = page.locator("a[href='/jobs/wait-normal']")
    link.focus()
    page.evaluate("scrollTo(0, 300); document.activeElement.mark = 'same'; loaded = 'once'")
    told = "document.getElementById('trouble').textContent"
    page.evaluate(
        f"new MutationObserver(() => window.told = {told}).observe("
        "document.getElementById('trouble'), {childList: true})"
    )
    submitted(far, "renewed", priority="high")  # It comes before the one that is looked at.
    window.turn()
    window.reaches("document.querySelector(\"a[href='/jobs/renewed']\") !== null")
    assert page.evaluate("document.activeElement.mark") == "same"
    assert window.focused() == "/jobs/wait-normal"
    assert page.evaluate("scrollY") == 300
    assert page.evaluate("window.told ?? null") is None
    # It is the page that was loaded, and has asked for itself once.
    assert page.evaluate("window.loaded") == "once"
    assert window.asked.count(page.url) == 2


def test_renewal_waits_for_who_marks_text_pauses_or_looks_elsewhere(window: Window) -> None:
    page = window.page
    page.clock.install()
    page.add_init_script(
        "Object.defineProperty(document, 'hidden', {get: () => window.elsewhere ?? false})"
    )
    window.open("/events")
    pause = page.get_by_role("button", name="Pause renewing")

    def is_still() -> None:
        before = window.asked.count(page.url)
        page.clock.run_for(4 * _PERIOD_MS)
        assert window.asked.count(page.url) == before

    page.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
    is_still()
    assert page.evaluate("String(getSelection())") == "Events"
    page.evaluate("getSelection().removeAllRanges()")
    window.turn()
    pause.click()
    assert pause.get_attribute("aria-pressed") == "true"
    is_still()
    # So it stays on the next page, until it is pressed again, which renews at once.
    window.open("/jobs")
    is_still()
    with page.expect_response(page.url):
        pause.click()
    page.evaluate("window.elsewhere = true; document.dispatchEvent(new Event('visibilitychange'))")
    is_still()
    with page.expect_response(page.url):
        page.evaluate(
            "window.elsewhere = false; document.dispatchEvent(new Event('visibilitychange'))"
        )


def test_page_says_when_it_cannot_be_renewed(window: Window) -> None:
    page = window.page
    page.clock.install()
    window.open("/")
    before = page.locator("main").inner_text()
    told = "document.getElementById('trouble').textContent"
    damaged = "<main id=main><h1>Damaged</h1></main><p id=as-of>"
    page.route("**/*", lambda route: route.fulfill(status=500, body=damaged))
    window.turn()
    window.reaches(f"{told} === 'Not renewed: 500 Damaged'")
    page.unroute("**/*")
    page.route("**/*", lambda route: route.abort())
    page.clock.run_for(_PERIOD_MS)
    window.reaches(f"{told} === 'Not renewed: the server does not answer'")
    assert page.locator("main").inner_text() == before
    page.unroute("**/*")
    window.turn()
    window.reaches(f"{told} === ''")
    window.complaints.clear()  # The browser itself tells of both.


def test_page_of_what_is_nowhere_becomes_one_once_it_is_there(window: Window, far: Serving) -> None:
    """Also where the browser keeps nothing for the page."""
    page = window.page
    page.clock.install()
    page.add_init_script(
        "Object.defineProperty(window, 'sessionStorage', {get() { throw new Error('denied'); }})"
    )
    window.open("/jobs/coming")
    assert page.locator("h1").inner_text() == "Not found"
    window.turn()
    assert page.locator("#trouble").inner_text() == ""
    submitted(far, "coming")
    window.turn()
    window.reaches("document.querySelector('h1').textContent === 'Job coming'")
    assert page.get_by_role("button", name="Pause renewing").is_visible()
    window.complaints.clear()  # The browser itself tells of the 404.


def test_page_is_readable_without_javascript(browser: "Browser", far: Serving) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{far.url}/")
    assert page.locator("h1").inner_text() == "7 to watch"
    assert page.locator("meta[http-equiv=refresh]").count() == 1
    assert not page.get_by_role("button", name="Pause renewing").is_visible()
    assert HARM[:20] in page.locator("main").inner_text()
    page.locator("a[href='/jobs/harm']").first.click()
    assert page.locator("h1").inner_text() == "Job harm"
    context.close()
