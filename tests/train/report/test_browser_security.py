"""Text of problems, models and configs is data in the episode browser: nothing of it runs."""

import json
import re
import shutil

import pytest

from elenchus.data import records
from elenchus.train.report.browser import folder
from tests.scripts.test_report_security import PAYLOADS, evil_episode
from tests.support import browser_runs
from tests.support.browser_page import MARKS, READY, Page

pytestmark = MARKS


@pytest.fixture(scope='module')
def hostile(tmp_path_factory):
    """A browser in which every text is a payload."""
    run = tmp_path_factory.mktemp('run') / 'run<img src=x onerror=document.title=1>'
    run.mkdir()
    episodes = [evil_episode(browser_runs.WORDS, payload) for payload in PAYLOADS]
    places = {f'04-evaluate {PAYLOADS[0].replace("/", "|")}': [*episodes, *map(_twice, episodes)]}
    browser_runs.write_run(run, places=places)
    config = {PAYLOADS[n].replace('.', ''): PAYLOADS[n + 1] for n in range(0, len(PAYLOADS), 2)}
    (run / 'config.json').write_text(json.dumps(config))
    folder.write_browser(run, run.parent / 'out', other=run)
    return run.parent / 'out'


def _twice(episode):
    return records.Episode(episode.problem_id, 'level', episode.turns)


@pytest.mark.parametrize('with_policy', [True, False])
def test_no_payload_runs(chromium, hostile, tmp_path, with_policy):
    """With the policy, and with text nodes alone; every episode and view is opened."""
    target = tmp_path / 'out'
    shutil.copytree(hostile, target)
    if not with_policy:
        page = target / 'index.html'
        page.write_text(re.sub(r'<meta http-equiv="Content-Sec[^>]*>', '', page.read_text()))
    with Page(chromium, target) as p:
        p.page.evaluate('() => elenchus.app.setQuery({})')
        for show in ('steps', 'text', 'tokens'):
            p.page.evaluate('(show) => elenchus.app.set({ show })', show)
            for n in range(2 * len(PAYLOADS)):
                p.page.evaluate('(n) => elenchus.app.open(n)', n)
                p.until('(n) => document.getElementById("view").dataset.episode === String(n)', n)
        for view in ('compare', 'health', 'run', 'episodes'):
            p.page.evaluate('(view) => elenchus.app.set({ view, ep: null })', view)
            p.page.wait_for_timeout(100)
        p.page.evaluate('(text) => elenchus.app.setWords(text)', PAYLOADS[0])
        p.page.wait_for_timeout(400)
        assert p.count()[0] >= 2
        assert p.page.evaluate('() => document.documentElement.dataset.owned') is None
        selector = 'img, iframe, object, math, base, body script, form'
        tags = p.page.eval_on_selector_all(
            selector, '(all) => all.map((e) => e.tagName + (e.src || ""))'
        )
        assert all(tag.startswith('SCRIPTfile:') for tag in tags)


def test_a_payload_that_is_read_as_html_is_noticed(chromium, hostile, tmp_path):
    """Shows that the test above can fail, and that the policy holds where text nodes would not."""
    for with_policy in (True, False):
        target = tmp_path / str(with_policy)
        shutil.copytree(hostile, target)
        page = target / 'index.html'
        broken = page.read_text().replace('<main id="main">', f'<main id="main">{PAYLOADS[1]}')
        if not with_policy:
            broken = re.sub(r'<meta http-equiv="Content-Sec[^>]*>', '', broken)
        page.write_text(broken)
        context = chromium.new_context()
        opened = context.new_page()
        opened.goto(page.as_uri())
        opened.wait_for_selector(READY)
        opened.wait_for_timeout(300)
        owned = opened.evaluate('() => document.documentElement.dataset.owned')
        assert owned == (None if with_policy else '1')
        context.close()
