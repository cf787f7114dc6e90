"""A browser, a server and a page that plays, for the tests of the page."""

from collections.abc import Iterator

import browser as real
import pytest
from playwright.sync_api import Browser, Page, sync_playwright


@pytest.fixture(scope="module")
def browser(need) -> Iterator[Browser]:
    """Chromium."""
    need(real.chromium(), "no Chromium: install the package chromium")
    need(real.strudel(), "no Strudel: run `npm ci --prefix web`")
    with sync_playwright() as playwright:
        browser = real.launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def stage(browser) -> Iterator[real.Stage]:
    """The server, fast at 240 bpm."""
    with real.Stage() as stage:
        yield stage


@pytest.fixture
def page(browser: Browser, stage: real.Stage) -> Iterator[Page]:
    """A page that plays. At its end nothing may have gone wrong in it that the test has not put into `expected`."""
    page = real.open_page(browser, stage)
    yield page
    wrong = [trouble for trouble in [*page.troubles, *page.evaluate("stopped")]
             if not any(text in trouble for text in page.expected)]
    page.close()
    assert not wrong
