"""Pairs as sequences: prompts, masks, reference log-probabilities on disk, KTO's baseline."""

import json

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data.batching import packing, pipeline
from elenchus.data.records import Episode
from elenchus.train import pairs, preferences
from elenchus.train.pair_rules import Pair
from tests.support import fake_engine, tiny_model

CHAT = fake_engine.CHAT


def episode(*texts, question='eve 7 ; eve ?', problem='p'):
    """Attempt, critique and refinement of these texts."""
    roles = ('attempt', 'critique', 'refinement')
    turns = (CHAT.text_turn(role, text) for role, text in zip(roles, texts, strict=False))
    return Episode(problem, 1, (*CHAT.question_turns(question), *turns))


def examples_of(chosen, rejected, *, mask_common=False):
    pair = pairs.pair_examples(CHAT, Pair(chosen, rejected, 0.0), rule='mine')
    return pairs.without_common(pair) if mask_common else pair


def trained_text(example):
    return CHAT.tokenizer.decode(example.tokens[example.loss_mask > 0].tolist())


def test_the_last_turns_are_trained_behind_one_prompt():
    both = examples_of(episode('#### 7'), episode('#### 8'))
    assert [trained_text(side) for side in both[:2]] == ['#### 7', '#### 8']
    assert not both.others
    same = examples_of(episode('#### 8', 'wrong', '#### 7'), episode('#### 8', 'wrong', '#### 8'))
    assert [trained_text(side) for side in same[:2]] == ['#### 7', '#### 8']


@pytest.mark.parametrize(
    'rejected',
    [
        episode('#### 8', question='eve 8 ; eve ?'),
        episode('#### 8', 'wrong', '#### 8'),
    ],
)
def test_two_prompts_are_refused_in_one_line(rejected):
    with pytest.raises(ValueError, match=r"prefer.pairs='mine': the two responses to 'p' answer"):
        examples_of(episode('#### 7'), rejected)


def test_what_both_begin_with_may_stay_untrained():
    """Step-DPO: the common steps are context. ReVISE: so is the attempt before its refinement."""
    both = examples_of(episode('eve 7\n #### 7'), episode('eve 7\n #### 8'), mask_common=True)
    assert [trained_text(side) for side in both[:2]] == ['7', '8']
    same = examples_of(episode('#### 7'), episode('#### 7'), mask_common=True)
    kept, counts = pairs.fitting_pairs([both, same], length=100)
    assert kept == [0] and counts == {'pairs_alike': 1, 'pairs_too_long': 0}


def test_a_pair_that_no_row_can_hold_is_counted():
    both = examples_of(episode('#### 7'), episode('#### 8'))
    size = sum(len(side.tokens) for side in both[:2])
    assert pairs.fitting_pairs([both], length=size)[0] == [0]
    assert pairs.fitting_pairs([both], length=size - 1) == (
        [],
        {'pairs_alike': 0, 'pairs_too_long': 1},
    )


def test_others_have_the_prompt_of_the_pair_and_responses_to_another_question():
    questions = ['a', 'a', 'b']
    data = [
        examples_of(
            episode(f'#### {2 * i}', question=f'eve {q} ; eve ?'),
            episode(f'#### {2 * i + 1}', question=f'eve {q} ; eve ?'),
        )
        for i, q in enumerate((3, 3, 5))
    ]
    result = pairs.mismatched(data, questions, length=100)
    texts = [[trained_text(e) for e in others] for others in result]
    assert texts == [['#### 4', '#### 5'], ['#### 4', '#### 5'], ['#### 2', '#### 3']]
    for pair, others in zip(data, result, strict=True):
        start = pairs.first_trained(pair.chosen)
        for example in others:
            assert example.tokens[:start].tolist() == pair.chosen.tokens[:start].tolist()
    cut = pairs.mismatched(data, questions, length=len(data[0].chosen.tokens) - 1)
    assert all(len(e.tokens) < len(data[0].chosen.tokens) for others in cut for e in others)


def test_others_have_whole_responses_where_only_what_differs_is_trained():
    data = [
        examples_of(
            episode(f'eve 7\n #### {i}', question=f'eve {i} ; eve ?'),
            episode(f'eve 7\n #### {i + 1}', question=f'eve {i} ; eve ?'),
        )
        for i in (3, 5)
    ]
    (first, _) = pairs.mismatched(data, ['a', 'b'], length=100)
    assert [trained_text(e) for e in first] == ['eve 7\n #### 5', 'eve 7\n #### 6']


def table(_, batch):
    """Stands for a model: -token / 100 of each token, 0 at a sequence's start."""
    return np.where(batch.positions > 0, -batch.tokens / 100, 0).astype(np.float32)


@given(st.lists(st.integers(2, 20), min_size=1, max_size=12))
def test_log_probabilities_come_back_in_the_order_of_the_examples(sizes):
    examples = tiny_model.random_examples(1, sizes)
    values = pairs.logprobs_of(None, examples, length=20, logprobs=table)
    for example, row in zip(examples, values, strict=True):
        expected = -example.tokens / 100 * (example.loss_mask > 0)
        np.testing.assert_allclose(row, expected, atol=1e-7)


def test_the_reference_is_computed_once_and_a_damaged_file_is_named(tmp_path):
    path = epath.Path(tmp_path) / 'reference.npz'
    examples, calls = tiny_model.random_examples(1, (4, 7, 5)), []

    def compute():
        calls.append(1)
        return pairs.logprobs_of(None, examples, length=20, logprobs=table)

    first = pairs.reference_logprobs(path, examples, compute)
    second = pairs.reference_logprobs(path, examples, compute)
    assert len(calls) == 1
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r'reference.npz has 16 log-probabilities for 11 tokens'):
        pairs.reference_logprobs(path, examples[:2], compute)


def test_a_shift_of_a_batch_lowers_the_score_of_every_sequence():
    batch = tiny_model.random_batch(3)
    shifted = pairs.shift_batch(batch, 0.7)
    change = (shifted.ref_logprobs - batch.ref_logprobs) * batch.loss_mask
    sequences = sum(
        len(set(s[m > 0])) for s, m in zip(batch.segments, batch.loss_mask, strict=True)
    )
    assert np.count_nonzero(change) == sequences
    np.testing.assert_allclose(change[change != 0], 0.7, rtol=1e-5)


def test_figures_of_pairs():
    examples = [pairs.PairedExamples(*tiny_model.random_examples(i, (5, 9))) for i in range(3)]
    values = [np.full(size, v, np.float32) for v, size in ((-1, 5), (-2, 9)) * 3]
    zeros = [np.zeros(size, np.float32) for size in (5, 9) * 3]
    loss = preferences.published('dpo', beta=0.5)
    figures = pairs.PairScores.of(examples, values, zeros, loss=loss).figures()
    assert figures['chosen_logprob'] == -5 and figures['rejected_logprob'] == -18
    assert figures['margin'] == pytest.approx(6.5) and figures['accuracy'] == 1.0
    same = pairs.PairScores.of(examples, values, values, loss=loss).figures()
    assert (same['margin'], same['accuracy']) == (0.0, 0.5)
    simpo = preferences.published('simpo')
    mean = pairs.PairScores.of(examples, values, values, loss=simpo).figures()
    sizes = [[e.loss_mask.sum() for e in pair[:2]] for pair in examples]
    expected = np.mean([2.0 * (-5 / a + 18 / b) for a, b in sizes])
    assert mean['margin'] == pytest.approx(expected)


def test_batches_of_pairs_keep_pairs_together_and_resume():
    sizes = np.random.default_rng(0).integers(2, 14, 60)
    examples = tiny_model.random_examples(1, sizes)
    data = [pairs.PairedExamples(*examples[i : i + 2]) for i in range(0, 60, 2)]
    make = lambda: iter(pipeline.make_dataset(data, seed=3, rows=3, length=26, num_epochs=2))  # noqa: E731
    whole = list(make())
    count = 0
    for batch in whole:
        for row in range(3):
            numbers = batch.segments[row]
            assert numbers.max() % 2 == 0
            for first in range(1, numbers.max(), 2):
                tokens = batch.tokens[row, (numbers == first) | (numbers == first + 1)].tolist()
                joined = [packing.joined(pair[:2]).tokens.tolist() for pair in data]
                assert tokens in joined
                count += 1
    assert count == 2 * len(data)
    iterator = make()
    for _ in range(3):
        next(iterator)
    saved = json.loads(json.dumps(iterator.get_state()))
    resumed = make()
    resumed.set_state(saved)
    for batch, other in zip(resumed, whole[3:], strict=True):
        np.testing.assert_array_equal(batch.tokens, other.tokens)
