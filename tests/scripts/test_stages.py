"""What stages make of episodes: curation and every figure told; what settings cannot be."""

import types

import numpy as np
import pytest

from configs import lab
from data import records, verify
from scripts import evaluate, improve, run, train, workspace
from train import settings


def make_episode(tokens=(1,), problem='p', **outcome):
    turn = records.Turn('attempt', (6,), tuple(tokens), step_ends=(len(tokens),))
    return records.Episode(problem, 1, (turn,), outcome)


def judged(correct, verdict, refined=None, **more):
    told = {'correct': correct, 'verdict': verdict, **more}
    return make_episode(**told, **({} if refined is None else {'refined_correct': refined}))


def settings_of(**changes):
    config = lab.get_config('smoke')
    for name, value in changes.items():
        config.update_from_flattened_dict({name.replace('__', '.'): value})
    return settings.build(workspace.RunSettings, config)


# Self-training weights


def test_responses_weigh_one_or_their_critics_scores():
    turn = records.Turn('attempt', (6,), (5, 9, 5, 1), step_ends=(2, 4), step_scores=(0.9, 0.2))
    weights = {
        weighting: improve.response_weights(turn, make_episode(score=0.4), weighting=weighting)
        for weighting in ('keep', 'response', 'steps')
    }
    np.testing.assert_allclose(weights['keep'], np.ones(4))
    np.testing.assert_allclose(weights['response'], np.full(4, 0.4))
    np.testing.assert_allclose(weights['steps'], [0.9, 0.9, 0.2, 0.2])


def test_a_response_without_a_score_weighs_nothing():
    turn = make_episode().turns[0]
    assert not improve.response_weights(turn, make_episode(score=None), weighting='response').any()


# Figures


def test_transitions_are_shares_of_all_attempts_and_helpfulness_of_wrong_ones():
    episodes = [
        judged(True, True),
        judged(True, False, refined=False),
        judged(False, False, refined=True),
        judged(False, None, refined=False),
    ]
    told = evaluate.transitions(episodes)
    assert told == {'c2c': 0.25, 'c2i': 0.25, 'i2c': 0.25, 'i2i': 0.25, 'helpfulness': 0.5}


def test_garbled_critiques_count_neither_way_but_against_the_parse_rate():
    episodes = [
        judged(True, True, located=None, first_error=None),
        judged(False, False, located=1, first_error=1),
        judged(False, True, located=None, first_error=0),
        judged(False, None, located=None, first_error=0),
    ]
    told = evaluate.critic_metrics(episodes, types.SimpleNamespace(settings=settings_of()))
    assert told['parse_rate'] == 0.75
    assert told['discriminability'][0] == pytest.approx(2 / 3)
    assert told['found'] == pytest.approx(1 / 3) and told['passed'] == 1.0
    assert told['first_error_f1'] == pytest.approx(2 * 1 / (1 + 3))


def test_without_checkable_steps_no_location_is_scored():
    settings_only = types.SimpleNamespace(settings=settings_of())
    assert 'first_error_f1' not in evaluate.critic_metrics([judged(True, True)], settings_only)
    assert evaluate.spurious_share([judged(True, True)]) is None


@pytest.mark.parametrize(
    ('pairs', 'f1'),
    [
        ([(None, None)], 0.0),
        ([(2, 2), (None, None)], 1.0),
        ([(1, 2)], 0.0),
        ([(0, 0), (0, None), (None, 3)], 0.5),
    ],
)
def test_location_counts_the_very_line(pairs, f1):
    assert evaluate.first_error_f1(pairs) == f1


def test_answers_reached_through_a_wrong_step_are_counted_among_right_ones():
    episodes = [make_episode(correct=c, steps_correct=s) for c, s in ((1, 1), (1, 0), (0, 0))]
    assert evaluate.spurious_share(episodes) == 0.5


def test_a_majority_is_right_however_the_reference_spells_its_number():
    problem = records.Problem('p', '?', '0.50', '#### 0.50', 1, 'jsonl')
    group = [judged(True, True, answer=verify.canonical(text)) for text in ('1/2', '.5')]
    told = evaluate.two_player_summary(
        types.SimpleNamespace(settings=settings_of()), [problem], [group]
    )
    for arm in ('attempt', 'refined', 'majority@1', 'majority@2', 'refined majority@2', 'pass@2'):
        assert told['accuracy'][arm]['all'][0] == 1.0, arm


# Opening


def test_every_stage_has_a_script_that_can_run_it():
    assert set(lab.STAGES) == set(run.STAGES) == set(workspace.StageName.__args__)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'actor__num_problems': 61}, r'actor\.num_problems=61 must be in \[1, 60\]'),
        ({'evaluate__num_problems': 21}, r'evaluate\.num_problems=21 must be in \[1, 20\]'),
        ({'evaluate__majority': (1, 3)}, r'evaluate\.majority=3 must be in \[1, 2\]'),
        ({'critique__num_inserted': -1}, r'critique\.num_inserted=-1 must be at least 0'),
        ({'critique__raised_temperature': 0.5}, r'\.raised_temperature=0\.5 must be at least 0\.7'),
        ({'critique__num_rollouts': 0}, r'critique\.num_rollouts=0 must be at least 1'),
        ({'critique__filter_successes': 3}, r'\.filter_successes=3 must be in \[0, 2\]'),
        ({'critique__rollout_threshold': 1.5}, r'\.rollout_threshold=1\.5 must be in \[0, 1\]'),
        ({'critique__level_balance': -0.1}, r'critique\.level_balance=-0\.1 must be in \[0, 1\]'),
        ({'critique__correct_share': 1.0}, r'critique\.correct_share=1\.0 must be in \[0, 1\)'),
    ],
)
def test_a_stage_cannot_ask_for_more_than_there_is(changes, message):
    workspace.check_counts(settings_of())
    with pytest.raises(ValueError, match=message):
        workspace.check_counts(settings_of(**changes))


@pytest.mark.parametrize(
    'field',
    [
        'reinforce.length',
        'sampling.engine.max_length',
        'sampling.engine.prompt_buckets',
        'sampling.score.lengths',
        'model.max_length',
    ],
)
def test_a_shape_that_the_longest_conversation_exceeds_is_an_error(field):
    question = 50
    s = settings_of().sampling
    attempt = question + 1 + s.attempt_tokens
    critique = attempt + 1 + s.critique_tokens
    refinement = critique + 1 + s.refinement_tokens
    fitting = {
        'reinforce.length': attempt,
        'sampling.score.lengths': (critique,),
        'sampling.engine.prompt_buckets': (critique + 1,),
        'sampling.engine.max_length': refinement,
        'model.max_length': max(refinement, settings_of().train.length),
    }
    names = {name: name.replace('.', '__') for name in fitting}
    changes = {names[name]: value for name, value in fitting.items()}
    workspace.check_lengths(settings_of(**changes), question)
    value = fitting[field]
    changes[names[field]] = (value[0] - 1,) if isinstance(value, tuple) else value - 1
    with pytest.raises(ValueError, match=rf'^{field}\S*=\d+ must be at least \d+'):
        workspace.check_lengths(settings_of(**changes), question)


def test_a_guide_must_fit_before_an_attempt_and_its_critique():
    question, guide = 50, 200
    s = settings_of()
    attempt = question + guide + 1 + s.sampling.attempt_tokens
    whole = attempt + 1 + s.sampling.critique_tokens
    fitting = {
        'sampling__engine__prompt_buckets': (attempt + 1,),
        'sampling__engine__max_length': whole,
        'model__max_length': whole,
    }
    workspace.check_lengths(settings_of(**fitting), question, longest_guide=guide)
    for field in ('sampling__engine__prompt_buckets', 'sampling__engine__max_length'):
        name = field.replace('__', r'\.')
        with pytest.raises(ValueError, match=rf'^{name}\S*=\d+ must be .* longest guide 201'):
            workspace.check_lengths(settings_of(**fitting), question, longest_guide=guide + 1)
        value = fitting[field]
        fitting[field] = (attempt + 2,) if isinstance(value, tuple) else value + 1


def test_documents_are_made_when_read():
    made = []
    documents = train.Documents(10**9, lambda i: made.append(i) or i)
    assert len(documents) == 10**9 and documents[np.int64(7)] == 7 and made == [7]
