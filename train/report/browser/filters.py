"""The one filter of the episode browser: its fields, how a URL states it, and what it keeps.

The page (page/filter.js) interprets the same fields, which are written beside the data. A filter is
what follows # in the browser's address, such as `stage=04-evaluate&level=1,2&reward=..0.5`:

    choice   name=a,b    the episode's value is one of those listed
    flags    name=a,b    the episode has one of the flags listed, or more
    range    name=a..b   the value is known and in [a, b]; either end may be missing
    text     name=words  what the episode says contains the words, whatever their case

Values are percent-encoded; unknown names are ignored. A filter never keeps an unknown value.
"""

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from elenchus.train.report.browser.rows import FLAGS, NUM_BINS, TRANSITIONS

SAYS = ('correct', 'wrong', 'unreadable')
_RANGE = re.compile(r'(-?\d*\.?\d+(?:e[+-]?\d+)?)?\.\.(-?\d*\.?\d+(?:e[+-]?\d+)?)?')
_SPACES = re.compile(r'[ \t\n]+')

Query = dict[str, Any]
"""Name of a field -> the values listed, (low, high), or the words."""


def make_fields(levels: Sequence[str], sources: Sequence[Mapping[str, Any]]) -> list[dict]:
    """Returns the fields of the filter, in the order of the page.

    A field has name, title, kind and the column of the index that it reads; `values` are the names
    of the numbers in that column. Those of a `source` are read in the table of sources.
    """
    by_source = lambda name: sorted({s[name] for s in sources if s[name] is not None})  # noqa: E731
    return [
        _field('stage', 'Stage', 'choice', column='source', values=by_source('stage')),
        _field('part', 'Part', 'choice', column='source', values=by_source('part')),
        _field(
            'round', 'Round', 'choice', column='source', values=list(map(str, by_source('round')))
        ),
        _field('level', 'Level', 'choice', column='level', values=list(levels)),
        _field('transition', 'Change', 'choice', column='transition', values=TRANSITIONS),
        _field('verdict', 'Verdict is', 'choice', column='agrees', values=('true', 'false')),
        _field('says', 'Critic says', 'choice', column='judged', values=SAYS),
        _field('attempt', 'Attempt', 'choice', column='before', values=('wrong', 'right')),
        _field('bin', 'Score', 'choice', column='bin', values=tuple(map(str, range(NUM_BINS)))),
        _field('step_bin', 'Step score', 'flags', column='step_bins', values=_step_bins()),
        _field('flag', 'Health', 'flags', column='flags', values=tuple(FLAGS)),
        _field('reward', 'Reward', 'range', column='reward'),
        _field('question', 'Question', 'choice', column='problem', values=None),
        _field('text', 'Text', 'text', column=''),
    ]


def parse(fields: Sequence[Mapping[str, Any]], address: str) -> Query:
    """Returns the filter that an address states; a field that it does not limit is absent."""
    kinds, query = {field['name']: field['kind'] for field in fields}, {}
    for item in address.removeprefix('#').split('&'):
        name, equals, value = item.partition('=')
        kind = kinds.get(name)
        if not kind or not equals or not value:
            continue
        if kind == 'range':
            if (match := _RANGE.fullmatch(urllib.parse.unquote(value))) and any(match.groups()):
                low, high = (None if end is None else float(end) for end in match.groups())
                query[name] = (low, high)
        elif kind == 'text':
            if words := normalised(urllib.parse.unquote(value)):
                query[name] = words
        else:
            query[name] = tuple(map(urllib.parse.unquote, value.split(',')))
    return query


def keeps(
    fields: Sequence[Mapping[str, Any]], query: Query, row: Mapping[str, Any], *, text: str
) -> bool:
    """Returns whether a filter keeps an episode.

    row: the episode's values by field, as `describe` names them. text: all that it says.
    """
    return all(
        _keeps(field['kind'], query[field['name']], row.get(field['name']), text=text)
        for field in fields
        if field['name'] in query
    )


def normalised(text: str) -> str:
    """Returns a text in lower case, with runs of white space as one space."""
    return _SPACES.sub(' ', text).strip(' ').lower()


def describe(fields: Sequence[Mapping[str, Any]], run: Mapping[str, Any], index: int) -> dict:
    """Returns the values by field of one episode of an index: names, flags and numbers."""
    columns = run['columns']
    source = run['sources'][columns['source'][index]]
    row = {}
    for field in fields:
        name, column = field['name'], field['column']
        if column == 'source':
            row[name] = None if source[name] is None else str(source[name])
        elif column == 'problem':
            row[name] = run['problems'][columns['problem'][index]]['id']
        elif field['kind'] == 'flags':
            bits = columns[column][index]
            row[name] = {value for n, value in enumerate(field['values']) if bits >> n & 1}
        elif field['kind'] == 'choice':
            number = columns[column][index]
            row[name] = None if number is None else field['values'][number]
        elif column:
            row[name] = columns[column][index]
    return row


def _keeps(kind: str, wanted: Any, value: Any, *, text: str) -> bool:
    if kind == 'text':
        return wanted in normalised(text)
    if value is None:
        return False
    if kind == 'range':
        low, high = wanted
        return (low is None or value >= low) and (high is None or value <= high)
    return bool(value & set(wanted)) if kind == 'flags' else value in wanted


def _field(
    name: str, title: str, kind: str, *, column: str, values: Sequence[str] | None = ()
) -> dict:
    return {'name': name, 'title': title, 'kind': kind, 'column': column, 'values': values}


def _step_bins() -> tuple[str, ...]:
    """Names of the bits of `step_bins`: '3r' is a right step whose score is in bin 3."""
    return tuple(f'{n}{side}' for n in range(NUM_BINS) for side in 'wr')
