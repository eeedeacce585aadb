"""Text of problems, models and configs is data on the report: nothing of it runs or is fetched."""

import html.parser
import json
import re
import shutil
import subprocess

import pytest

from elenchus.data import records
from elenchus.data.files import episode_files
from elenchus.data.text import tokenizer
from elenchus.train.config import build
from elenchus.train.report import html_elements, html_page
from tests.scripts import test_report

MARK = 'document.documentElement.dataset.owned=1'
PAYLOADS = (
    f'<script>{MARK}</script>',
    f'</script><img src=x onerror={MARK}>',
    f'"><svg onload={MARK}>',
    f"'><body onload={MARK}>",
    f'</style><script>{MARK}</script>',
    f'</title><script>{MARK}</script>',
    f'</text></svg><script>{MARK}</script>',
    f'--><script>{MARK}</script><!--',
    f']]><script>{MARK}</script>',
    f'<iframe srcdoc="<script>parent.{MARK}</script>">',
    f'<a href="javascript:{MARK}" id=x autofocus onfocus={MARK}>x</a>',
    f'<details open ontoggle={MARK}>',
    f'<math><mtext></mtext><mglyph><style><img src=x onerror={MARK}>',
    f'<object data="data:text/html,<script>{MARK}</script>">',
    f'<meta http-equiv=refresh content="0;url=javascript:{MARK}">',
    f'<style>@import "http://evil.invalid/x.css";</style><input onfocus={MARK} autofocus>',
    f'${{title}} $sections ${{jndi:x}} $\\frac{{1$ <img src=x onerror={MARK}>',
    f'&lt;script&gt;{MARK}&lt;/script&gt;<base href=http://evil.invalid/>',
    f'\x00<scr\x00ipt>{MARK}</scr\x00ipt>\x1b]0;owned\x07\u202e<b>',
    f'+ADw-script+AD4-{MARK}+ADw-/script+AD4-<template><img src=x onerror={MARK}></template>',
)
SAFE = {'script', 'iframe', 'object', 'embed', 'base', 'form', 'input', 'img', 'math', 'a'}


def evil_stages(payloads):
    """Summaries in which every text is a payload: stages, arms, levels, contrasts, kinds."""
    stages = {}
    for n, (first, second) in enumerate(zip(payloads[::2], payloads[1::2], strict=True)):
        name = f'{n:02d}-evaluate {first.replace("/", "|")}'
        summary = test_report.make_summary(0.0)
        levels = {second: [0.5, 0.4, 0.6], 'all': [0.5, 0.4, 0.6]}
        summary['accuracy'] = {first: levels, second: levels}
        summary['difference'] = {f'{first}-{second}': levels}
        summary['tokens_per_answer'] = {first: 10.0, second: 20.0}
        summary['steps_correct'] = {first: levels}
        summary['uptake'] = {'warning': second}
        stages[name] = summary
    add_comparison(next(iter(stages.values())), *payloads[:2])
    return stages


def add_comparison(summary, first, second):
    """Adds the fields of several strategies; one stage has them, because they take long to draw."""
    summary |= test_report.make_comparison()
    equal = summary.pop('equal_tokens')['best of n (min)@1']
    summary['equal_tokens'] = {second: equal | {'against': first}}
    kinds = {first: {'attempts': 4, 'found': 0.25, 'located': 0.125}}
    summary['measures']['detection']['all'] = kinds
    summary['frontier']['rows'][0]['all']['choice'] = first
    budget = summary['budget']
    budget['levels'] = {second: budget['all']}
    budget['all']['majority']['size'] = first


def evil_episode(words, payload):
    """An episode whose id, level, answers and turns are a payload."""
    ids = tuple(words.encode(payload))
    turns = [
        records.Turn(role, (4,), ids, facts=records.TurnFacts(answer=payload))
        for role in ('question', 'attempt', 'critique', 'refinement')
    ]
    turns[1] = records.Turn(
        'attempt',
        (6,),
        ids,
        steps=(records.Step(len(ids), 0.3),),
        facts=records.TurnFacts(correct=False, answer=payload),
    )
    return records.Episode(payload, payload, tuple(turns))


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """The report of a run all of whose texts are payloads."""
    folder = tmp_path_factory.mktemp('run') / 'run<img src=x onerror=document.title=1>'
    stages = evil_stages(PAYLOADS)
    first = next(iter(stages))
    words = tokenizer.SentencePieceTokenizer.from_bytes(
        tokenizer.train_tokenizer(list(PAYLOADS) * 5, vocab_size=400, model_type='bpe')
    )
    folder.mkdir()
    (folder / 'summary.json').write_text(json.dumps({'stages': stages}))
    for name in (first, f'{first}/round<script>{MARK}<'):
        (folder / 'stages' / name).mkdir(parents=True)
        rows = [
            {'step': n, f'loss/{PAYLOADS[2]}': 1.0, f'reward/{PAYLOADS[16]}': 2.0} for n in (1, 2)
        ]
        (folder / 'stages' / name / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    episodes = [evil_episode(words, payload) for payload in PAYLOADS]
    episode_files.write_episodes(
        folder / 'stages' / first / 'episodes' / 'part.array_record', episodes
    )
    words.save(folder / 'tokenizer.model')
    (folder / 'config.json').write_text(build.to_json({'name': PAYLOADS[0]}))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(html_page, 'NUM_EPISODES', len(PAYLOADS))
        return html_page.write_report(folder)


class Elements(html.parser.HTMLParser):
    """Collects what a browser would act on: tags, attributes with code, and addresses."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.handlers, self.addresses, self.texts = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith('on')]
        self.addresses += [v for k, v in attrs if k in ('src', 'href', 'xlink:href', 'srcdoc')]
        self.handlers += [v for k, v in attrs if k == 'style' and 'url(' in v.replace('url(#', '')]

    def handle_data(self, data):
        self.texts.append(data)


def test_no_payload_becomes_an_element(page):
    elements = Elements(page.read_text())
    assert not elements.handlers
    assert elements.tags & SAFE == {'a'}  # the links of the page's own sections
    assert all(address.startswith('#') for address in elements.addresses)
    text = ''.join(elements.texts)
    for payload in PAYLOADS[:18]:
        assert payload.replace('-', ' − ') in text or payload in text, payload


def test_control_characters_are_shown_and_not_sent(page):
    text = page.read_text()
    assert not re.search('[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]', text)
    assert '\\x1b]0;owned\\x07\\u202e' in text


def test_a_policy_forbids_scripts_and_addresses(page):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page.read_text())
    rules = dict(rule.strip().split(' ', 1) for rule in policy.split(';'))
    assert rules == {
        'default-src': "'none'",
        'style-src': "'unsafe-inline'",
        'base-uri': "'none'",
        'form-action': "'none'",
    }


def test_text_in_a_table_is_escaped_unless_it_is_our_html():
    text = html_elements.table(
        ['<i>'], [['<b>', html_elements.escape('<u>'), html_elements.percent(0.5)]], '<s>'
    )
    assert not set(Elements(text).tags) & set('ibus')
    assert '&lt;b&gt;' in text and '&lt;u&gt;' in text and '&amp;' not in text


# In a browser

CHROMIUM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'chrome'))),
    None,
)


def dumped(path):
    """The page's elements after all its scripts have run."""
    arguments = ['--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=2000']
    profile = f'--user-data-dir={path.parent / "profile"}'
    result = subprocess.run(
        [CHROMIUM, *arguments, profile, '--dump-dom', path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert '</html>' in result.stdout, result.stderr
    return result.stdout


def without_policy(text):
    return re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', '', text)


@pytest.mark.skipif(CHROMIUM is None, reason='no Chromium')
def test_no_payload_runs_in_a_browser(page, tmp_path):
    """Once with the policy and once with the escaping alone; a page that runs one is noticed."""
    text = page.read_text()
    (tmp_path / 'with.html').write_text(text)
    (tmp_path / 'without.html').write_text(without_policy(text))
    assert 'data-owned="1"' not in dumped(tmp_path / 'with.html')
    assert 'data-owned="1"' not in dumped(tmp_path / 'without.html')


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason='no Chromium')
@pytest.mark.parametrize('payload', PAYLOADS[:8])
def test_a_payload_that_is_not_escaped_runs_only_without_the_policy(page, tmp_path, payload):
    """Shows that the browser test can fail, and what the policy is for."""
    broken = page.read_text().replace('<main>', f'<main>{payload}')
    (tmp_path / 'with.html').write_text(broken)
    (tmp_path / 'without.html').write_text(without_policy(broken))
    assert 'data-owned="1"' in dumped(tmp_path / 'without.html')
    assert 'data-owned="1"' not in dumped(tmp_path / 'with.html')
