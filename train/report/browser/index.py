"""Reads the episodes of a run and writes its data: index, texts and tokens in chunks."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from elenchus.data.files import episode_files
from elenchus.data.records import Episode
from elenchus.data.text import auto_chat, tokenizer
from elenchus.data.text.printable import printable
from elenchus.train.report.browser import chunks, filters, rows, sources
from elenchus.train.report.browser.chunks import ChunkWriter


class Words:
    """Decodes the tokens of a run: whole turns, and single tokens."""

    def __init__(self, workdir: epath.Path):
        path = tokenizer.find_tokenizer_file(workdir)
        if path is None:
            raise ValueError(f'{workdir} has no tokenizer.model or tokenizer.json to read texts')
        self.tokenizer = tokenizer.load_tokenizer(path)
        self.decode = self.tokenizer.decode
        self._anchor: list[int] = []

    def end_id(self, config: Mapping[str, Any], workdir: epath.Path) -> tuple[int | None, str]:
        """Returns the token that ends a turn; or None, and why it is not known."""
        template = config.get('tokenizer', {}).get('template', 'elenchus')
        try:
            chat = auto_chat.load_chat(self.tokenizer, workdir, template=template, system='')
        except ValueError as error:
            return None, printable(error)
        return chat.end_id, ''

    def piece(self, token: int) -> str:
        """Returns what a token adds to a text, with the space before it."""
        if not self._anchor:
            self._anchor = self.tokenizer.encode('a')[:1]
        before, both = self.decode(self._anchor), self.decode([*self._anchor, token])
        return printable(both.removeprefix(before) if both.startswith(before) else both)


class Index:
    """Columns of all episodes of a run, and the tables that their numbers refer to."""

    def __init__(self):
        self.rows: list[dict[str, Any]] = []
        self.sources: list[dict[str, Any]] = []
        self.problems: list[dict[str, str]] = []
        self._numbers: dict[str, int] = {}
        self._samples: collections.Counter = collections.Counter()

    def start_source(self, source: sources.Source, *, has_values: bool) -> None:
        """Adds a source; the episodes that follow are of it."""
        names = {'stage': printable(source.stage), 'part': printable(source.part)}
        self.sources.append(names | {'round': source.round, 'stored': has_values})
        self._samples.clear()

    def add(self, episode: Episode, row: dict[str, Any], *, question: str) -> None:
        """Adds the row of the next episode."""
        name = printable(episode.problem_id)
        if name not in self._numbers:
            self._numbers[name] = len(self.problems)
            self.problems.append({'id': name, 'question': printable(question)})
        problem = self._numbers[name]
        place = {'source': len(self.sources) - 1, 'problem': problem}
        self.rows.append(place | {'sample': self._samples[problem]} | row)
        self._samples[problem] += 1

    def mark_groups(self) -> None:
        """Sets the flag of groups, of two samples or more, that all have one known reward."""
        groups = collections.defaultdict(list)
        for row in self.rows:
            groups[row['source'], row['problem']].append(row)
        for group in groups.values():
            rewards = {row['reward'] for row in group}
            if len(group) > 1 and len(rewards) == 1 and None not in rewards:
                for row in group:
                    row['flags'] |= rows.bit('no_variance')

    def tables(self) -> dict[str, Any]:
        """Returns columns, sources, problems and the fields of the filter."""
        levels = sorted({row['level'] for row in self.rows}, key=_level_order)
        for row in self.rows:
            row['level'] = levels.index(row['level'])
        names = list(self.rows[0]) if self.rows else []
        return {
            'columns': {name: [row[name] for row in self.rows] for name in names},
            'sources': self.sources,
            'problems': self.problems,
            'fields': filters.make_fields(levels, self.sources),
        }


def write_episodes(
    workdir: epath.Path, writer: ChunkWriter, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes index, texts, tokens and pieces of a run; returns what the page says of them."""
    folders = sources.find_sources(workdir)
    index = Index()
    summary = {'chunk': chunks.SIZE, 'episodes': 0, 'truncation': ''}
    if folders:
        words = Words(workdir)
        end_id, summary['truncation'] = words.end_id(config, workdir)
        pieces = _write_chunks(folders, index, writer, words=words, end_id=end_id)
        writer.write('pieces', {str(token): words.piece(token) for token in sorted(pieces)})
    index.mark_groups()
    writer.write('index', index.tables())
    return summary | {'episodes': len(index.rows)}


def _write_chunks(
    folders: Sequence[sources.Source],
    index: Index,
    writer: ChunkWriter,
    *,
    words: Words,
    end_id: int | None,
) -> set[int]:
    """Writes texts and tokens, and fills the index; returns the tokens that occur."""
    texts, tokens, pieces, number = [], [], set(), 0
    for source in folders:
        values = sources.read_values(source)
        index.start_source(source, has_values=values is not None)
        for place, episode in enumerate(episode_files.read_episodes(source.folder)):
            own = values[place] if values else None
            row = rows.make_row(episode, values=own, end_id=end_id)
            index.add(episode, row, question=_question(episode, words.decode))
            texts.append(rows.make_text(episode, words.decode))
            tokens.append(rows.make_tokens(episode, own))
            pieces.update(token for turn in tokens[-1] if turn for token in turn['ids'])
            if len(texts) == chunks.SIZE:
                _write_chunk(writer, number, texts, tokens)
                texts, tokens, number = [], [], number + 1
    if texts:
        _write_chunk(writer, number, texts, tokens)
    return pieces


def _write_chunk(writer: ChunkWriter, number: int, *contents: Sequence[Any]) -> None:
    for name, values in zip(('text', 'tokens'), contents, strict=True):
        writer.write(f'{name}-{number:04d}', values)


def _question(episode: Episode, decode: rows.Decode) -> str:
    return next((decode(t.tokens) for t in episode.turns if t.role == 'question'), '')


def _level_order(level: str) -> tuple[bool, float, str]:
    return (False, float(level), '') if level.isdecimal() else (True, 0.0, level)
