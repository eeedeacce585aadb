"""Text of strangers in Markdown files: it is shown as it is and does nothing."""

import html
import re

import hypothesis
import pytest
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from elenchus.data.text import markdown
from elenchus.data.text.printable import printable
from elenchus.train.benchmarks import evaluate_command, judge_command
from elenchus.train.report import study_contrasts, study_table
from elenchus.train.stages import data_card

PAYLOADS = (
    '<script>alert(1)</script>',
    '<img src=x onerror=alert(1)>',
    '[see](javascript:alert(1))',
    '![x](http://evil/pixel.png)',
    '[x]: http://evil "t"',
    'http://evil/x www.evil.com a@evil.com @someone mailto:a@b.c',
    'a | b | c',
    'a\n\n# Title\n\n- item',
    '`code` *strong* _slant_ __bold__ ~~gone~~ $x$',
    '&lt;b&gt; &#60;b&#62; &amp;',
    '\\<b\\> \\| \\',
    '\x1b[2Jx\u202e',
    '<!-- hidden',
    '</td></table>',
    '~~~\nfence',
)
RENDERER = MarkdownIt('commonmark').enable(['table', 'strikethrough'])


def shown(line: str) -> list[str]:
    """Returns the cells of a rendered table row; what is not text of a cell is an error."""
    page = RENDERER.render(f'{line}\n|---|---|\n')
    cells = re.findall('<th>(.*?)</th>', page, re.DOTALL)
    rest = re.sub('</?(table|thead|tbody|tr|th)>|\\s', '', re.sub('<th>.*?</th>', '', page))
    assert not rest and not any('<' in cell for cell in cells), page
    return [html.unescape(cell) for cell in cells]


def one_line(text: str) -> str:
    return ' '.join(printable(text).split())


@pytest.mark.parametrize('payload', PAYLOADS)
def test_a_cell_shows_its_text_and_nothing_else(payload):
    cell = markdown.text(payload)
    assert shown(markdown.row([cell, 'end'])) == [one_line(payload), 'end']
    plain = RENDERER.render(f'## {cell}')
    assert html.unescape(re.sub('</?h2>', '', plain)).strip() == one_line(payload)
    assert not re.search(r'https?://|www\.|(^|[^\w])@\w', cell), 'GitHub makes links of these'


@hypothesis.given(st.text(st.characters(codec='utf-8'), min_size=1))
@hypothesis.example('a_b__c')
def test_any_text_is_shown(text):
    hypothesis.assume(one_line(text))
    assert shown(markdown.row([markdown.text(text), 'end'])) == [one_line(text), 'end']


@pytest.mark.parametrize(
    'name', ['critique_in_the_loop', 'majority@2', 'own - shuffled', 'greedy, flexible', 'F1 (%)']
)
def test_usual_names_stay_as_they_are(name):
    assert markdown.text(name) == name


def tables_with(payload: str) -> dict[str, str]:
    """Returns every Markdown file that has a stranger's text in it."""
    levels = {'all': [0.5, 0.4, 0.6]}
    measured = dict.fromkeys(('f1', 'found', 'passed', 'accuracy'), [0.5, 0.4, 0.6])
    contrast = study_contrasts.Contrast(arm=payload, baseline=payload, column=payload)
    result = study_contrasts.adjust([study_contrasts.compare([1.0, 2.0], [], [], design=None)])
    counts = {'paths': 1, 'flawed': 1, 'kept': 1, 'kept_flawed': 1, 'kept_share': 1.0}
    card = {name: {payload: counts | {'left_out': {payload: 1}}}
            for name in ('construction', 'level', 'kind')}  # fmt: skip
    card |= {'all': counts | {'left_out': {}}, 'annotator': payload}
    card |= {'tokens_sampled': {payload: 1}}
    return {
        'study.md': '\n'.join(
            study_table.table_lines({payload: {payload: [1.0, 2.0]}, 'b': {payload: [2.0, 3.0]}})
        ),
        'contrasts': '\n'.join(study_contrasts.table_lines([contrast], result)),
        'evaluate': evaluate_command.table(
            {payload: {'accuracy': {payload: levels}, 'difference': {payload: levels}}}
        ),
        'judge': judge_command.table({payload: {'critics': {payload: measured}}}),
        'data_card.md': data_card.to_markdown(card),
    }


@pytest.mark.parametrize('payload', PAYLOADS)
def test_every_markdown_file_shows_strangers_text(payload):
    for name, written in tables_with(payload).items():
        page = RENDERER.render(written)
        tags = set(re.findall('<(?!/)([^ >]*)[ >]', page))
        assert tags <= {'table', 'thead', 'tbody', 'tr', 'th', 'td', 'p', 'h1'}, (name, page)
        widths = {row.count('<t') for row in re.findall('<tr>(.*?)</tr>', page, re.DOTALL)}
        assert (
            widths
            and html.escape(one_line(payload), quote=False)
            in html.unescape(page).replace('"', '&quot;')
            or one_line(payload) in html.unescape(page)
        ), (name, page)
