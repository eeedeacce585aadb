"""The data card of critique data: how many attempts were made and kept, and why others were not."""

import collections
from collections.abc import Iterable, Mapping, Sequence

from elenchus.data.records import Episode
from elenchus.data.text import markdown


def count_attempts(attempts: Iterable[Episode], rejections: Mapping[int, str]) -> dict:
    """Counts all attempts and, by reason, those rejected; by construction, level and kind.

    The kind is that of the mistake that was inserted or, where the judge knows one, of the first
    mistake. `rejections` has the reason by index.
    """
    # One pass, because an attempt is read from its file each time that it is asked for.
    groups, flawed = {'construction': [], 'level': [], 'kind': []}, []
    for episode in attempts:
        facts = episode.attempt.facts
        groups['construction'].append(episode.facts.construction)
        groups['level'].append(str(episode.level))
        groups['kind'].append(episode.facts.mistake or facts.kind or 'unknown')
        flawed.append(not facts.correct)

    def count(indices: Sequence[int]) -> dict:
        kept = [i for i in indices if i not in rejections]
        reasons = collections.Counter(rejections[i] for i in indices if i in rejections)
        return {
            'paths': len(indices),
            'flawed': sum(flawed[i] for i in indices),
            'kept': len(kept),
            'kept_flawed': sum(flawed[i] for i in kept),
            'kept_share': round(len(kept) / len(indices), 4),
            'left_out': dict(sorted(reasons.items())),
        }

    card = {'all': count(range(len(flawed)))}
    for name, labels in groups.items():
        members = collections.defaultdict(list)
        for i, label in enumerate(labels):
            members[label].append(i)
        card[name] = {group: count(members[group]) for group in sorted(members)}
    return card


def to_markdown(card: Mapping) -> str:
    """Returns the data card as Markdown."""
    tokens = ', '.join(f'{name} {count}' for name, count in card['tokens_sampled'].items())
    facts = f'Annotator: {card["annotator"]}. Tokens sampled: {tokens}.'
    lines = ['# Critique data', '', markdown.text(facts)]
    for name in ('construction', 'level', 'kind'):
        titles = (name, 'paths', 'flawed', 'kept', 'kept flawed', 'kept share', 'left out')
        lines += ['', markdown.row(titles), '|---' * len(titles) + '|']
        for group, figures in (*card[name].items(), ('all', card['all'])):
            *counts, rejections = figures.values()
            reasons = ', '.join(f'{reason} {count}' for reason, count in rejections.items())
            lines.append(markdown.row([markdown.text(group), *counts, markdown.text(reasons)]))
    return '\n'.join(lines) + '\n'
