"""A browser for the tests of the page."""

import pytest

from tests.support.browser_page import CHROMIUM


@pytest.fixture(scope='module')
def chromium():
    """Chromium, driven by Playwright; skips where Playwright is not installed."""
    playwright = pytest.importorskip('playwright.sync_api')
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()
