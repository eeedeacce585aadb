"""What a critic notices, by kind of mistake; an oracle notices all, a flatterer nothing."""

from elenchus.configs.evaluations import fbi
from tests.support import method_cases


def test_by_kind():
    slips = [({'correct': False, 'kind': 'slip'}, {'verdict': v}) for v in (False, True, None)]
    rest = [
        ({'correct': True}, {'verdict': True}),
        ({'correct': False}, {'verdict': False}),
    ]
    figures = fbi.noticed(method_cases.groups(slips, rest), str)
    assert figures == {'none': 1.0, 'slip': 1 / 3, 'unknown kind': 1.0}


def test_an_oracle_and_a_flatterer():
    truth = [(True, None), (False, 'slip'), (False, 'copy')]
    for verdict_of, expected in ((lambda right: right, 1.0), (lambda right: True, 0.0)):
        row = [({'correct': r, 'kind': k}, {'verdict': verdict_of(r)}) for r, k in truth]
        figures = fbi.noticed(method_cases.groups(row), str)
        assert figures.pop('none') == 1.0 and set(figures.values()) == {expected}
