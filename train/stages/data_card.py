"""The data card of critique data: how many attempts were made and kept, and why others were not."""

import collections
from collections.abc import Mapping, Sequence

from elenchus.data.records import Episode
from elenchus.data.text import markdown


def count_attempts(attempts: Sequence[Episode], rejections: Mapping[int, str]) -> dict:
    """Counts all attempts and, by reason, those rejected; by construction, level and kind.

    The kind is that of the mistake that was inserted or, where the judge knows one, of the first
    mistake. `rejections` has the reason by index.
    """
    groups = {
        'construction': lambda e: e.facts.construction,
        'level': lambda e: str(e.level),
        'kind': lambda e: e.facts.mistake or e.attempt.facts.kind or 'unknown',
    }

    def count(indices: Sequence[int]) -> dict:
        kept = [i for i in indices if i not in rejections]
        reasons = collections.Counter(rejections[i] for i in indices if i in rejections)
        return {
            'paths': len(indices),
            'flawed': sum(not attempts[i].attempt.facts.correct for i in indices),
            'kept': len(kept),
            'kept_flawed': sum(not attempts[i].attempt.facts.correct for i in kept),
            'kept_share': round(len(kept) / len(indices), 4),
            'left_out': dict(sorted(reasons.items())),
        }

    card = {'all': count(range(len(attempts)))}
    for name, group_of in groups.items():
        members = collections.defaultdict(list)
        for i, episode in enumerate(attempts):
            members[group_of(episode)].append(i)
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
