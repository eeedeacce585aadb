"""What a figure of one's own may read besides the groups: guides and later rounds."""

from elenchus.sampling.metrics import measures
from tests.support import method_cases

HERE = 'tests.sampling.metrics.test_measures'


def plain(groups, read):
    return {'attempts': sum(map(len, groups))}


def of_rounds(groups, read, rounds):
    assert [len(row) for row in rounds] == [len(group) for group in groups]
    return {f'{i}/{j}': len(chain) for i, row in enumerate(rounds) for j, chain in enumerate(row)}


def of_both(groups, read, conditions, rounds):
    return {'guides': len(conditions), 'rounds': sum(len(c) for row in rounds for c in row)}


of_rounds.reads_rounds = of_both.reads_rounds = of_both.reads_conditions = True


def test_later_rounds_are_those_of_each_attempt():
    groups = method_cases.groups([{'correct': True}] * 2, [{'correct': False}] * 2)
    episode = groups[0][0]
    names = [f'{HERE}:{name}' for name in ('plain', 'of_rounds', 'of_both')]
    options = {'conditions': {'answer': groups}, 'rounds': {1: [episode], 2: [episode] * 3}}
    assert measures.measure(names, groups, str, **options)['own_measures'] == {
        'plain': {'attempts': 4},
        'of_rounds': {'0/0': 0, '0/1': 1, '1/0': 3, '1/1': 0},
        'of_both': {'guides': 1, 'rounds': 4},
    }
    alone = measures.measure(names[1:2], groups, str)['own_measures']['of_rounds']
    assert not any(alone.values())
