"""The episode browser in Chromium, driven by Playwright: a page that was opened from disk."""

import csv
import json
import pathlib

import pytest

from elenchus.train.report.browser import chunks, folder
from tests.support import browser_runs, repeated_run
from tests.support.browser_page import MARKS, Page

pytestmark = MARKS

SUPPORT = pathlib.Path(browser_runs.__file__).parent
NAMELESS, CONTRAST = (
    (SUPPORT / f'page_{name}.js').read_text().partition('\n')[2] for name in ('names', 'contrast')
)


@pytest.fixture(scope='module')
def out(tmp_path_factory):
    """The browser of two runs; the second has fewer questions and another seed."""
    first, second = (tmp_path_factory.mktemp(name) for name in ('first', 'second'))
    browser_runs.write_run(first)
    episodes = [e for e in browser_runs.all_kinds() if e.problem_id != 'lab/0/test/1']
    turned = [e.with_turn_facts('attempt', correct=True) for e in episodes]
    browser_runs.write_run(second, places={'04-evaluate': turned}, seed=1)
    target = tmp_path_factory.mktemp('out') / 'browser'
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chunks, 'SIZE', 10)  # several files
        folder.write_browser(first, target, other=second)
    return target


def number_of(places):
    return sum(len(browser_runs.PLACES[place]) for place in places)


def test_the_first_evaluation_is_shown_and_the_filter_is_in_the_address(chromium, out):
    with Page(chromium, out) as p:
        assert p.count() == (19, number_of(browser_runs.PLACES))
        assert p.page.url.endswith('#stage=04-evaluate&part=main')
        p.page.click('#clear')
        p.until('() => elenchus.app.result.kept.length > 19')
        assert p.count() == (number_of(browser_runs.PLACES),) * 2
        p.page.go_back()
        p.until('() => elenchus.app.result.kept.length === 19')


def test_charts_and_list_move_together_and_cells_open_their_episodes(chromium, out):
    with Page(chromium, out, '#stage=04-evaluate&part=main') as p:
        label = 'attempt wrong, the critic says correct'
        cell = p.page.locator(f'button[aria-label^="{label}"]')
        shown = int(cell.locator('b').inner_text())
        assert shown == 3
        cell.click()
        p.until('() => elenchus.app.query.says')
        assert p.count()[0] == shown
        assert 'attempt=wrong' in p.page.url and 'says=correct' in p.page.url
        assert p.page.locator('.row').count() == shown
        assert p.page.locator('.tile dd').first.inner_text().startswith(str(shown))
        bin_button = p.page.locator('.bins button').first
        bin_button.click()
        p.until('() => elenchus.app.query.bin')
        assert 0 < p.count()[0] <= shown


def test_an_episode_shows_three_columns_with_verdicts_errors_and_differences(chromium, out):
    with Page(chromium, out, '#stage=04-evaluate&part=main&transition=i2c&says=wrong') as p:
        p.page.locator('.row').first.click()
        p.wait('.aligned')
        heads = p.page.locator('.step.head [role=columnheader]').all_inner_texts()
        assert heads[1:] == ['attempt', 'critique', 'refinement']
        assert p.page.locator('.flag.error').count() >= 1
        assert p.page.locator('.flag.claim').count() == 1
        assert p.page.locator('del').all_inner_texts() == ['3']
        assert p.page.locator('ins').all_inner_texts() == ['4']
        assert p.page.locator('.score').count() == 2
        p.page.click('text=As written')
        p.wait('.turn.critique pre')
        p.page.click('button:has-text("Tokens")')
        p.wait('.token')
        assert (
            'Not stored of this episode: trainer − sampler, weight, entropy.'
            in p.page.inner_text('.heat')
        )


def test_tokens_show_what_reinforcement_learning_stored(chromium, out):
    with Page(chromium, out, '#part=rollouts%2Factor&show=tokens') as p:
        p.page.locator('.row').nth(1).click()
        p.wait('.token')
        names = p.page.locator('.heat .choice button').all_inner_texts()
        assert names == ['log-probability', 'weight', 'trainer − sampler']
        p.page.click('.heat .choice button:has-text("trainer")')
        p.wait('.tokens .token.plus')
        titles = p.page.locator('.tokens .token').first.get_attribute('title')
        assert titles.endswith('trainer − sampler 0.0620')
        assert 'advantage' in p.page.locator('.group thead').inner_text()
        assert 'Not stored of this episode: entropy.' in p.page.inner_text('.heat')


def test_the_group_and_the_question_over_rounds(chromium, out):
    with Page(chromium, out, '#stage=04-evaluate&part=main&question=lab%2F0%2Ftest%2F0') as p:
        p.page.locator('.row').first.click()
        p.wait('.rounds .places')
        assert p.page.locator('.group tbody tr').count() == 2
        assert 'no variance' in p.page.inner_text('.group')
        assert p.page.locator('.places li').count() == 3
        p.page.locator('.places li').nth(2).locator('.dot').first.click()
        p.until("() => document.querySelectorAll('.places li')[2]?.className === 'here'")
        assert '05-vanilla · round 2 · test' in p.page.inner_text('header.episode')


def test_keys(chromium, out):
    with Page(chromium, out, '#stage=04-evaluate&part=main') as p:
        press = p.page.keyboard.press
        opened = lambda: p.page.evaluate('() => elenchus.app.setting("ep")')  # noqa: E731
        press('j')
        first = opened()
        press('j')
        assert opened() == first + 1
        press('k')
        assert opened() == first
        press('n')
        assert opened() == first + 2  # two samples a question
        press('p')
        assert opened() == first + 1
        press('Escape')
        assert opened() is None
        press('/')
        assert p.page.evaluate('() => document.activeElement.id') == 'text'
        p.page.keyboard.type('ben 3 - 3 = 0')
        p.until('() => elenchus.app.query.text && !elenchus.app.result.unread.length')
        assert 0 < p.count()[0] < 19
        press('Enter')
        press('j')
        p.wait('mark')
        p.page.locator('.menu summary').nth(3).click()
        p.wait('.menu[open]')
        press('Escape')
        assert p.page.locator('.menu[open]').count() == 0 and opened() is not None
        press('3')
        p.wait('table.health')
        press('?')
        p.wait('dialog[open]')
        press('Escape')
        p.until('() => !document.querySelector("dialog")')


def test_two_runs_are_paired_by_question(chromium, out):
    with Page(chromium, out, '#view=compare&left=a:1&right=b:0') as p:
        tiles = p.page.locator('.tile dd').all_inner_texts()
        assert tiles[0].split('\n')[0] == '8'  # one question is of the first run alone; one unknown
        won = p.page.locator('.choice button:has-text("won")').inner_text()
        assert int(won.split()[1]) > 0
        p.page.locator('.pairs .row').first.click()
        p.wait('.two pre')
        assert p.page.locator('.two pre').count() == 2
        assert p.page.locator('td code:has-text("seed")').count() == 1
        p.page.locator('.two button:has-text("open")').nth(1).click()
        p.wait('.aligned')
        assert p.page.evaluate('() => elenchus.app.run.key') == 'b'
        assert p.page.input_value('#run') == 'b'


def test_menus_show_the_address_and_a_search_that_waits_is_not_late(chromium, out):
    with Page(chromium, out, '#stage=04-evaluate&part=main&order=constructor') as p:
        kept = p.count()[0]
        assert p.page.input_value('#order') == 'stored'
        p.page.select_option('#order', 'long')
        p.page.go_back()
        p.until('() => document.getElementById("order").value === "stored"')
        p.page.evaluate('() => { elenchus.app.setWords("zebra"); elenchus.app.setQuery({}); }')
        assert p.page.evaluate('() => elenchus.app.query.text') is None
        p.page.evaluate('() => { elenchus.app.setWords("zebra"); elenchus.app.move(1); }')
        assert p.page.evaluate('() => elenchus.app.query.text') == 'zebra'
        p.page.wait_for_timeout(200)
        p.until('() => !elenchus.app.result.unread.length')
        assert p.count()[0] == 0 < kept and p.page.evaluate('() => !elenchus.app.settings.ep')


def test_health_and_provenance(chromium, out):
    with Page(chromium, out, '#view=health') as p:
        rows = p.page.locator('table.health tbody tr')
        assert rows.count() == 8
        text = p.page.inner_text('#view')
        assert 'outside at 10 steps, first 11' in text
        p.page.locator('button[aria-label="show episodes: truncated"]').click()
        p.until('() => elenchus.app.query.flag')
        assert 'flag=truncated' in p.page.url and p.count()[0] > 0
        p.page.click('#views button:has-text("Run")')
        p.wait('pre.command')
        assert p.page.inner_text('pre.command') == 'scripts/run.py --seed=0'
        assert 'train.rate' in p.page.inner_text('table.config')


def test_the_filtered_episodes_are_written_as_jsonl_and_csv(chromium, out, tmp_path):
    with Page(chromium, out, '#stage=04-evaluate&part=main&transition=i2c') as p:
        for kind in ('JSONL', 'CSV'):
            with p.page.expect_download() as download:
                p.page.click(f'#tools button:has-text("{kind}")')
            download.value.save_as(tmp_path / kind)
        kept = p.count()[0]
    with Page(chromium, out, '#stage=04-evaluate&part=main&transition=c2c&attempt=wrong') as p:
        with p.page.expect_download() as download:
            p.page.click('#tools button:has-text("JSONL")')
        assert p.count()[0] == 0 == len(pathlib.Path(download.value.path()).read_bytes())
    lines = [json.loads(line) for line in (tmp_path / 'JSONL').read_text().splitlines()]
    assert len(lines) == kept == 3
    assert {line['transition'] for line in lines} == {'i2c'}
    assert [turn['role'] for turn in lines[0]['turns']] == ['attempt', 'critique', 'refinement']
    rows = list(csv.DictReader((tmp_path / 'CSV').open()))
    assert [row['question_id'] for row in rows] == [line['question_id'] for line in lines]


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [390, 860, 1600])
def test_every_view_fits_has_names_and_can_be_read(chromium, out, scheme, width):
    views = ('stage=04-evaluate&part=main', 'view=compare', 'view=health', 'view=run')
    opened = [f'ep=6&show={show}' for show in ('steps', 'text', 'tokens')]
    for address in (*views, *opened):
        with Page(chromium, out, f'#{address}', width=width, height=844, scheme=scheme) as p:
            if 'ep=' in address:
                p.wait('header.episode')
            assert p.page.evaluate('() => document.documentElement.scrollWidth') <= width, address
            sizes = '(e) => e.scrollWidth - e.clientWidth'
            assert p.page.eval_on_selector('#view', sizes) <= 0, address
            assert p.page.evaluate(NAMELESS) == [], address
            assert p.page.evaluate(CONTRAST) == [], address


def test_twenty_thousand_episodes_stay_responsive(chromium, tmp_path, capsys):
    """Few rows are elements; limits are for a machine that is busy with other work too."""
    episodes = list(repeated_run.repeated(browser_runs.all_kinds(), 20_000))
    run = browser_runs.write_run(tmp_path / 'run', places={'04-evaluate': episodes})
    folder.write_browser(run, tmp_path / 'out')
    with Page(chromium, tmp_path / 'out') as p:
        assert p.count() == (20_000, 20_000)
        assert p.page.locator('.row').count() < 60
        paints = p.page.evaluate('() => performance.getEntriesByType("paint")[0].startTime')
        ready = p.page.evaluate('() => performance.getEntriesByName("elenchus-ready")[0].startTime')
        p.page.evaluate('() => elenchus.app.pick({ transition: ["i2c"] })')
        p.until('() => elenchus.app.query.transition')
        filtering = p.page.evaluate('() => elenchus.app.filterTime')
        assert p.count()[0] == sum(browser_runs.is_put_right(e) for e in episodes)
        p.page.evaluate('() => elenchus.app.setWords("test/7/3")')
        p.until('() => elenchus.app.query.text && !elenchus.app.result.unread.length')
        assert p.count()[0] == 0  # question 7 has no such change
        p.page.evaluate('() => elenchus.app.setQuery({})')
        p.until(f'() => elenchus.app.result.kept.length === {len(episodes)}')
        p.page.evaluate('() => { document.querySelector(".list").scrollTop = 1e9; }')
        p.until('() => [...document.querySelectorAll(".row")].at(-1).ariaPosInSet === "20000"')
    with capsys.disabled():
        print(f'\nms: paint {paints:.0f}, ready {ready:.0f}, filter {filtering:.0f}')
    assert paints < 5_000 and ready < 30_000 and filtering < 3_000
