"""Step rewards against one forward pass per sequence, and their alignment to steps."""

import dataclasses
import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.data import records
from elenchus.data.critiques import grammars
from elenchus.data.lab import task
from elenchus.data.text import chat
from elenchus.data.text import tokenizer as tokenizers
from elenchus.model import placement, sharding
from elenchus.sampling import step_scores
from tests.support import compiled_programs, slow_cases, tiny_model

TOKENIZER = tokenizers.lab_tokenizer()
CHAT = chat.Chat(TOKENIZER)
(CORRECT,), (WRONG,) = TOKENIZER.encode('correct'), TOKENIZER.encode('wrong')
QUESTION = 'eve 7 ; ben : eve - 4 ; hal : ben + 7 ; hal ?'
RIGHT = task.solve(QUESTION)
FLAWED = 'ben : eve 7 - 4 = 9 ; ben 9\n hal : ben 9 + 7 = 6 ; hal 6\n #### 6'
SHAPES = step_scores.ScoreShapes(rows=2, lengths=(64, 128))


@functools.cache
def critic():
    return tiny_model.make_model(
        dataclasses.replace(tiny_model.CONFIG, vocab_size=64, max_length=128)
    )


def episode(attempt, critique):
    turns = (
        *CHAT.question_turns(QUESTION),
        CHAT.text_turn('attempt', attempt),
        CHAT.text_turn('critique', critique).with_facts(
            verdict_offsets=grammars.LAB.read(critique).offsets
        ),
    )
    return records.Episode('p', 2, turns)


def rewards(episodes, shapes=SHAPES):
    return step_scores.step_rewards(
        critic(),
        episodes,
        shapes,
        chat=CHAT,
        correct_id=CORRECT,
        wrong_id=WRONG,
    )


def judged(attempt):
    return episode(attempt, task.judge(QUESTION, attempt).critique)


def expected(item):
    """P(correct) against P(wrong) at every verdict word, one sequence at a time."""
    tokens = [t for turn in item.turns for t in (*turn.header, *turn.tokens)]
    start = len(tokens) - len(item.turns[-1].tokens)
    hidden, _ = critic()(jnp.array([tokens]), jnp.arange(len(tokens))[None])
    probabilities = np.asarray(jax.nn.softmax(critic().logits(hidden[0])))
    return [
        probabilities[at - 1, CORRECT] / probabilities[at - 1, [CORRECT, WRONG]].sum()
        for at in range(start, len(tokens))
        if tokens[at] in (CORRECT, WRONG)
    ]


def test_a_score_is_read_where_the_verdict_stands():
    item = judged(RIGHT)
    (scores,) = rewards([item])
    np.testing.assert_allclose(scores.steps, expected(item), atol=1e-5)
    assert len(scores.steps) == len(item.turn('attempt').step_ends) == 3
    assert scores.final == scores.steps[-1]


def test_steps_after_an_error_that_a_finished_critique_located_have_zero():
    item = judged(FLAWED)
    (scores,) = rewards([item])
    first, final = expected(item)
    np.testing.assert_allclose(scores.steps, [first, 0.0, 0.0], atol=1e-5)
    assert scores.final == pytest.approx(final, abs=1e-5)


def test_steps_up_to_the_critiques_end_are_reached():
    (right, flawed, none) = rewards([judged(RIGHT), judged(FLAWED), episode(RIGHT, 'eve = eve')])
    assert (right.num_reached, flawed.num_reached, none.num_reached) == (3, 1, 0)
    unclear = 'ben : eve - 4 ; correct\n hal : ben + 7 ; maybe\n answer : hal 0 ; maybe'
    (scores,) = rewards([episode(RIGHT, unclear)])
    assert scores.num_reached == 2 and scores.steps[0] > 0 and scores.steps[1:] == (None, None)


def test_an_unclear_verdict_is_unknown_and_never_passes():
    text = 'ben : eve - 4 ; correct or wrong\n hal : ben + 7 ; correct\n answer : hal 0 ; maybe'
    (scores,) = rewards([episode(RIGHT, text)])
    assert scores.steps[0] is None and scores.steps[1] > 0
    assert scores.steps[2] is None
    assert scores.final is None


def test_a_critique_without_verdicts_has_no_scores():
    (scores,) = rewards([episode(RIGHT, 'eve = eve = eve')])
    assert scores == step_scores.StepScores(None, None, 0, finished=True)


LINES = ['ben : eve - 4 ; correct', 'hal : ben + 7 ; {}', 'answer : hal 0 ; {}']


def cut(item, at):
    """The episode with its critique cut off after `at` tokens, as by its limit."""
    *before, critique = item.turns
    facts = critique.facts
    turn = CHAT.sampled_turn('critique', critique.tokens[:at], [-1.0] * at)
    offsets = grammars.LAB.read(CHAT.text(turn)).offsets
    turn = dataclasses.replace(turn, facts=dataclasses.replace(facts, verdict_offsets=offsets))
    return dataclasses.replace(item, turns=(*before, turn))


@pytest.mark.parametrize('second', ['correct', 'wrong', 'maybe'])
@pytest.mark.parametrize('final', ['correct', 'wrong', 'maybe'])
def test_wherever_a_critique_is_cut_off_no_step_gains_or_loses_by_it(second, final):
    """What it wrote has the whole critique's score; all else is unknown, and so is the answer."""
    item = episode(RIGHT, '\n '.join(LINES).format(second, final))
    (whole,) = rewards([item])
    parts = [cut(item, at) for at in range(1, len(item.critique.tokens))]
    for part, scores in zip(parts, rewards(parts), strict=True):
        assert scores.final is None and not scores.finished
        for score, expected in zip(scores.steps or (None,) * 3, whole.steps, strict=True):
            assert score is None or score == pytest.approx(expected, abs=1e-5)
        num_verdicts = sum(token in (CORRECT, WRONG) for token in part.critique.tokens)
        num_known = sum(score is not None for score in scores.steps or ())
        assert num_known == min(num_verdicts, 2 if second != 'maybe' else 1)
        assert (scores.steps or (None,) * 3)[2] is None


def test_a_finished_critique_that_skips_steps_without_calling_one_wrong_leaves_them_unknown():
    for final in ('correct', 'wrong'):
        (scores,) = rewards([episode(RIGHT, f'ben : eve - 4 ; correct\n answer : {final}')])
        assert scores.steps[0] > 0 and scores.steps[1:] == (None, None)
        assert scores.final is not None and scores.finished


def test_the_facts_of_an_attempt_tell_unknown_from_zero():
    models = types.SimpleNamespace(critic=critic(), sampler=types.SimpleNamespace(chat=CHAT))
    scorer = step_scores.StepScorer(SHAPES, {'correct_id': CORRECT, 'wrong_id': WRONG})
    items = [judged(FLAWED), cut(judged(RIGHT), 12), episode(RIGHT, 'eve')]
    flawed, short, none = (e.attempt for e in step_scores.score_steps(models, items, scorer=scorer))
    assert flawed.step_scores[1:] == (0.0, 0.0) and flawed.facts.critique_finished
    assert short.step_scores[-1] is None and short.facts.critique_finished is False
    assert short.facts.score is None and none.facts.score is None
    assert none.step_scores == (None,) * 3 and none.facts.num_reached == 0


def test_more_verdicts_than_steps_are_dropped():
    text = '\n '.join(['ben ; correct'] * 40 + ['answer : wrong'])
    with pytest.raises(ValueError, match='exceeds the longest'):
        rewards([episode(RIGHT, text)])
    (scores,) = rewards([episode(RIGHT, '\n '.join(['ben ; correct'] * 12))])
    assert len(scores.steps) == 3


def test_neither_order_nor_companions_nor_shapes_change_scores():
    items = [judged(RIGHT), judged(FLAWED), episode(RIGHT, 'eve'), judged(RIGHT), judged(FLAWED)]
    alone = [rewards([item])[0] for item in items]
    for some in (
        rewards(items),
        rewards(items[::-1])[::-1],
        rewards(items, step_scores.ScoreShapes(rows=5, lengths=(128,))),
    ):
        for one, other in zip(alone, some, strict=True):
            assert (one.steps is None) == (other.steps is None)
            pairs = (np.array(scores.steps or (), float) for scores in (one, other))
            np.testing.assert_allclose(*pairs, atol=1e-5)


def test_padding_and_absent_verdicts_are_masked():
    tokens = np.random.default_rng(0).integers(10, 40, (2, 12)).astype(np.int32)
    positions = np.array([[3, -1, 11], [0, 7, 5]], np.int32)

    def scores(tokens):
        return step_scores.verdict_scores(
            critic(),
            tokens,
            np.array([9, 8], np.int32),
            verdict_positions=positions,
            correct_id=np.int32(CORRECT),
            wrong_id=np.int32(WRONG),
        )

    values, mask = scores(tokens)
    np.testing.assert_array_equal(mask, [[True, False, False], [False, True, True]])
    assert not np.asarray(values)[~np.asarray(mask)].any()
    changed = np.where(np.arange(12) < np.array([[9], [8]]), tokens, 0)
    np.testing.assert_array_equal(scores(changed)[0], values)


@slow_cases.combinations(
    {(True, (2, 2, 2))},
    tie=[True, False],
    shape=[None, (8, 1, 1), (2, 2, 2)],
)
def test_scores_are_those_of_all_logits_and_only_two_columns_are_computed(tie, shape):
    config = dataclasses.replace(
        tiny_model.EVERYTHING, vocab_size=4096, max_length=32, tie_embeddings=tie
    )
    model = tiny_model.make_model(config)
    rng = np.random.default_rng(1)
    tokens = rng.integers(10, 4096, (8, 32)).astype(np.int32)
    positions = rng.integers(1, 32, (8, 16)).astype(np.int32)
    hidden, _ = model(tokens, np.broadcast_to(np.arange(32), tokens.shape))
    logits = model.logits(hidden)[np.arange(8)[:, None], positions - 1]
    expected = jax.nn.sigmoid(logits[..., 4001] - logits[..., 7])
    arguments = {
        'verdict_positions': positions,
        'correct_id': np.int32(4001),
        'wrong_id': np.int32(7),
    }
    mesh = tiny_model.one_device() if shape is None else sharding.make_mesh(shape)
    with jax.set_mesh(mesh):
        placed = placement.current().place(jax.device_get(model))
        lengths = np.full(8, 32, np.int32)
        scores, mask = step_scores.verdict_scores(placed, tokens, lengths, **arguments)
        compiled = step_scores.verdict_scores.lower(placed, tokens, lengths, **arguments).compile()
    assert mask.all() and scores.is_fully_replicated
    np.testing.assert_allclose(scores, expected, atol=2e-5)
    text = compiled.as_text()
    assert not re.search(r'f32\[(\d+,)*4096\]', text.replace('f32[16,4096]', '')), text
    # Of other shards come weights and the scores, and no row of a hidden state.
    if shape == (8, 1, 1):
        assert all(c.size <= 8 * 16 for c in compiled_programs.collectives(text))


def test_an_episode_must_end_with_a_critique():
    with pytest.raises(ValueError, match='must end with a turn and its critique'):
        rewards([records.Episode('p', 2, judged(RIGHT).turns[:-1])])


@pytest.mark.parametrize('rows, lengths', [(0, (8,)), (2, ()), (2, (16, 8))])
def test_malformed_shapes_are_an_error(rows, lengths):
    with pytest.raises(ValueError, match='rows|lengths'):
        step_scores.ScoreShapes(rows=rows, lengths=lengths)
