"""SCL: of an answer and its correction the right one is preferred, whichever it is."""

import pytest

from elenchus.configs.methods import scl
from elenchus.train import pair_rules
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support.method_cases import group, last_tokens, talk, written


def corrected(before, after):
    return talk(
        written('attempt', (10,), correct=before),
        written('critique', (2,)),
        written('refinement', (20,), correct=after),
    )


@pytest.mark.parametrize(
    ('before', 'after', 'tokens'),
    [
        (False, True, [((20,), (10,))]),
        (True, False, [((10,), (20,))]),
        (True, True, []),
        (False, False, []),
        (None, True, []),
        (False, None, []),
    ],
)
def test_pairs_are_those_that_differ_in_being_right(before, after, tokens):
    pairs = scl.corrections([group(corrected(before, after))])
    assert last_tokens(pairs) == tokens
    found = pair_rules.find_pairs(
        [group(corrected(before, after))],
        rule=scl.CHANGES['prefer.pairs'],
        keep=9,
        player='actor',
        takes_offsets=True,
    )
    assert last_tokens(found) == tokens
    for chosen, rejected in ((p.chosen, p.rejected) for p in found):
        assert {side.turns[-1].role for side in (chosen, rejected)} == {'attempt', 'refinement'}


def test_attempts_alone_make_no_pair_and_right_ones_are_refined_too():
    rows = [talk(written('attempt', (10,), correct=ok)) for ok in (True, False)]
    assert scl.corrections([group(*rows)]) == []
    settings = build.build(RunSettings, scl.get_config('default')).prefer
    assert settings.explore.refine == 'always' and settings.prompt == 'question'
