"""SuperCorrect: the corrected thought against the wrong one, from where they part."""

from elenchus.configs.methods import super_correct
from elenchus.train import pair_rules, pairs
from tests.train.test_pairs import CHAT, episode, trained_text


def test_only_what_follows_the_right_steps_is_trained():
    wrong = 'eve 7 ; ben : eve - 4 = 2\n #### 2'
    right = 'eve 7 ; ben : eve - 4 = 3\n #### 3'
    pair = pair_rules.Pair(episode(right), episode(wrong), 0.0)
    masked = super_correct.CHANGES['prefer.mask_common']
    chosen, rejected, _ = pairs.without_common(pairs.pair_examples(CHAT, pair, rule='refined'))
    assert masked
    assert trained_text(chosen).split() == ['3', '####', '3']
    assert trained_text(rejected).split() == ['2', '####', '2']
    assert super_correct.CHANGES['prefer.pairs'] in pair_rules.PAIR_RULES.functions
