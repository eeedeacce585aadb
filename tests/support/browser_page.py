"""The episode browser in Chromium, opened from disk through Playwright."""

import pathlib
import shutil

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'chrome'))),
    None,
)
MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason='no Chromium'),
    pytest.mark.filterwarnings('ignore::ResourceWarning'),
    pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
]
READY = 'body[data-view]'


class Page:
    """A page with everything that it complained of."""

    def __init__(self, browser, out, address='', *, width=1400, height=900, scheme='light'):
        size = {'width': width, 'height': height}
        self.context = browser.new_context(viewport=size, color_scheme=scheme, offline=True)
        self.page = self.context.new_page()
        self.complaints, self.addresses = [], set()
        self.page.on('console', lambda m: self._note(m.type, m.text))
        self.page.on('pageerror', lambda error: self.complaints.append(str(error)))
        self.page.on('request', lambda request: self.addresses.add(request.url.partition(':')[0]))
        self.page.goto(f'{(pathlib.Path(out) / "index.html").as_uri()}{address}')
        self.page.wait_for_selector(READY, timeout=120_000)

    def _note(self, kind, text):
        if kind in ('error', 'warning'):
            self.complaints.append(text)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.context.close()
        if kind is None:
            assert not self.complaints
            assert self.addresses <= {'file', 'blob'}

    def count(self):
        """Numbers of episodes kept and in all."""
        text = self.page.inner_text('#count')
        return tuple(int(part.replace(',', '')) for part in text.split(' of '))

    def until(self, condition, argument=None):
        """Waits for a condition; the page's policy forbids Playwright's own way, which is eval."""
        for _ in range(600):
            if self.page.evaluate(condition, argument):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f'never true: {condition}')

    def wait(self, selector):
        return self.page.wait_for_selector(selector, timeout=60_000)
