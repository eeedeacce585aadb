"""What follows an attempt: built-in kinds of episodes and functions, and their credit."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from elenchus.data import records
from elenchus.data.lab import task
from elenchus.train.rl import advantages, rollouts, settings, update_batch
from tests.support import fake_engine
from tests.support.rollout_cases import (
    PROBLEMS,
    answer,
    assign_credit,
    batch_of,
    make_rules,
    stored_values,
)
from tests.support.rollout_cases import make_setup as setup_of
from tests.train.rl import test_trainer

PLAIN = {'advantage__outcome': 'dr_grpo', 'rewards__length': 0.0}


def groups_of(kind, rule=answer, *, problems=PROBLEMS[:1], **changes):
    """(groups, tokens, engine, rules) of rollouts of a kind of episode."""
    rules = make_rules(**PLAIN, **changes, turns__episode=kind)
    setup, engine = setup_of(rule)
    groups, tokens = rollouts.sample_actor_groups(setup, rules, problems, seed=7)
    return groups, tokens, engine, rules


def roles(episode):
    return [turn.role for turn in episode.turns]


def own(folder, body, *, name='mine', attributes=''):
    """A reference to a function whose file has this body."""
    path = folder / f'{name}.py'
    path.write_text(f'def follow(problem, notes):\n    {body}\n\n\n{attributes}\n')
    return f'{path}:follow'


def test_a_gated_episode_refines_what_the_critic_does_not_call_correct(monkeypatch):
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)
    (group,), tokens, engine, _ = groups_of('gated')
    (always,), *_ = groups_of('critique')
    assert tokens == engine.tokens and engine.num_requests('refinement') == 2
    for episode, refined in zip(group, always, strict=True):
        right = episode.attempt.facts.correct
        after = [] if right else ['critique', 'refinement']
        assert roles(episode) == ['question', 'attempt', *after]
        if right:
            assert episode.attempt.facts.verdict is True
        else:  # the same critique and noise as where all are refined
            assert episode.turns == refined.turns
    assert {episode.attempt.facts.correct for episode in group} == {True, False}


def test_a_refinement_is_compared_with_the_answers_that_stand(monkeypatch):
    """Attempts 1, 0, 1, 0; the wrong ones are refined, one of them to a right answer."""
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)

    def rule(role, request, seed):
        if role != 'refinement':
            return answer(role, request, seed)
        return answer('attempt', dataclasses.replace(request, id=request.id // 2), seed)

    (group,), _, _, rules = groups_of('gated', rule, turns__discount=0.5, turns__refinement=2.0)
    values = assign_credit(group, rules)
    last = [episode.turns[-1].facts.correct for episode in group]
    assert last == [True, True, True, False] and values.rewards == [1.0, 1.0, 1.0, 0.0]
    # Returns of attempts: their reward and half of twice that of the answer in the end.
    returns = np.array([1 + 1, 0 + 1, 1 + 1, 0 + 0])
    ends = 2 * np.array([1, 1, 1, 0])
    for i, (episode, turns) in enumerate(zip(group, values.advantages, strict=True)):
        assert set(turns) == ({2, 4} if len(episode.turns) == 4 else {2})
        np.testing.assert_allclose(turns[2], returns[i] - returns.mean())
        if 4 in turns:
            np.testing.assert_allclose(turns[4], ends[i] - ends.mean())
    assert update_batch.term_metrics([values]) == {
        'reward/attempt/correct': 0.5,
        'reward/refinement/correct': 0.5,
        'reward/correct': 0.75,
    }


def test_penalties_and_progress_of_turns_that_are_missing_are_zero(monkeypatch):
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)
    (group,), _, _, rules = groups_of('gated', turns__progress=10.0)
    penalties = [dict.fromkeys(range(1, len(e.turns) + 1), 0.25) for e in group]
    seen = {}

    def keep(returns, context):
        seen['rewards'] = context.rewards
        return returns

    monkeypatch.setitem(advantages.OUTCOMES.functions, 'dr_grpo', keep)
    assign_credit(group, rules, penalties=penalties)
    for episode, row in zip(group, seen['rewards'], strict=True):
        if episode.attempt.facts.correct:
            assert row.tolist() == [1 - 0.25, 1.0]
        else:  # answer() refines what has an odd id
            assert row.tolist() == [-0.25, 1 + 10 - 0.25]


def test_with_a_value_model_an_answer_that_stands_is_paid_like_one_that_is_repeated(monkeypatch):
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)
    changes = {'advantage__outcome': 'gae', 'turns__discount': 0.5}
    rules = make_rules(**PLAIN | changes, turns__episode='gated')
    setup, _ = setup_of(answer)
    (group,), _ = rollouts.sample_actor_groups(setup, rules, PROBLEMS[:1], seed=7)
    for episode, turns in zip(group, assign_credit(group, rules).advantages, strict=True):
        paid = {n: steps.sum() for n, steps in turns.items()}
        assert paid == ({2: 1.5} if episode.attempt.facts.correct else {2: 0.0, 4: 1.0})


def all_right(role, request, seed):
    return answer(role, dataclasses.replace(request, id=0), seed)


@pytest.mark.parametrize('outcome', ['gae', 'rloo'])
def test_credit_does_not_depend_on_whether_another_attempt_is_refined(monkeypatch, outcome):
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)
    changes = {'advantage__outcome': outcome, 'turns__discount': 0.5, 'turns__attempt': 0.25}
    rules = make_rules(**PLAIN | changes, turns__episode='gated')
    setup, engine = setup_of(all_right)
    (group,), _ = rollouts.sample_actor_groups(setup, rules, PROBLEMS[:1], seed=7)
    assert not engine.num_requests('refinement')
    seen = []
    monkeypatch.setitem(
        advantages.OUTCOMES.functions,
        outcome,
        lambda returns, context: seen.append((returns, context.turns)) or returns,
    )
    values = assign_credit(group, rules)
    (returns, turns) = seen[0]
    np.testing.assert_allclose(returns, [[0.25 + 0.5, 1.0]] * 4)
    assert [[t.turn.role for t in column] for column in turns] == [['attempt'] * 4] * 2
    assert [*values.terms[0]] == ['attempt'] and values.rewards == [1.0] * 4


@pytest.mark.parametrize('reply', ["''", "' '", 'None', 'False'])
def test_without_a_text_the_answer_stands(tmp_path, reply):
    (group,), _, engine, _ = groups_of(own(tmp_path, f'return {reply}'))
    assert {tuple(roles(e)) for e in group} == {('question', 'attempt')}
    assert not engine.num_requests('refinement')


def test_a_long_text_is_cut_off_where_a_critique_would_be(tmp_path):
    (group,), *_ = groups_of(own(tmp_path, "return '1 ' * 200"))
    for episode in group:
        assert len(episode.critique.tokens) == fake_engine.LIMITS['critique']
        assert fake_engine.CHAT.is_finished(episode.critique)
        assert set(fake_engine.CHAT.text(episode.critique).split()) == {'1'}


@pytest.mark.parametrize('last', ['', '1'])
def test_a_critique_that_is_passed_on_stays_as_it_was_sampled(tmp_path, monkeypatch, last):
    """Also one that was cut off, or is empty."""
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)

    def rule(role, request, seed):
        if role != 'critique':
            return answer(role, request, seed)
        size = request.max_tokens if last else 0
        return (fake_engine.ids_of('1')[0],) * size or (fake_engine.EOS,)

    reference = own(tmp_path, 'return notes.critique', attributes='follow.reads_critique = True')
    (group,), *_ = groups_of(reference, rule)
    (always,), *_ = groups_of('critique', rule)
    if last:
        assert [e.turns for e in group] == [e.turns for e in always]
    else:
        assert {tuple(roles(e)) for e in group} == {('question', 'attempt')}


def test_the_critic_scores_the_refinements_that_exist(monkeypatch):
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)
    (group,), tokens, engine, rules = groups_of('gated', rewards__steps=0.5)
    assert tokens == engine.tokens and engine.num_requests('critique') == 4 + 2
    for terms, episode in zip(assign_credit(group, rules).terms, group, strict=True):
        assert len(terms) == (2 if episode.turns[-1].role == 'refinement' else 1)
        assert all(values['steps'] is not None for values in terms.values())


def test_rows_of_mixed_groups_train_what_the_actor_wrote(monkeypatch):
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)
    groups, *_ = groups_of('gated')
    written = [
        sum(len(t.tokens) for t in episode.turns if t.role in settings.TRAINED_ROLES['actor'])
        for episode in groups[0]
    ]
    batch, metrics = batch_of(groups, informative=1)
    assert batch.loss_mask.sum(axis=1).tolist() == written
    assert metrics['reward/unfinished'] == 0


def test_a_function_tells_the_actor_something_instead_of_a_critique(tmp_path):
    reference = own(
        tmp_path, f"return problem.id != {PROBLEMS[0].id!r} and problem.question.split(';')[0]"
    )
    problems = PROBLEMS[:2]
    groups, tokens, engine, rules = groups_of(reference, problems=problems)
    assert tokens == engine.tokens and not engine.num_requests('critique')
    assert {tuple(roles(e)) for e in groups[0]} == {('question', 'attempt')}
    for episode in groups[1]:
        assert roles(episode) == ['question', 'attempt', 'critique', 'refinement']
        fact = problems[1].question.split(';')[0].strip()
        assert fake_engine.CHAT.text(episode.critique).strip() == fact
        assert not episode.critique.logprobs and episode.critique.facts.verdict is None
    batch, _ = batch_of(groups, informative=2)
    is_critique = batch.roles == records.ROLES.index('critique')
    assert is_critique.any() and not batch.loss_mask[is_critique].any()
    assert not assign_credit(groups[0], rules).zero_variance


def test_a_function_may_read_the_critic(tmp_path, monkeypatch):
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)
    body = "return None if notes.verdict else notes.critique.split('\\n')[-1]"
    reference = own(tmp_path, body, attributes='follow.reads_critique = True')
    (group,), tokens, engine, _ = groups_of(reference)
    assert tokens == engine.tokens and engine.num_requests('critique') == 4
    for episode in group:
        if episode.attempt.facts.correct:
            assert roles(episode) == ['question', 'attempt']
            continue
        text = fake_engine.CHAT.text(episode.attempt)
        whole = task.judge(PROBLEMS[0].question, text).critique
        assert fake_engine.CHAT.text(episode.critique) == whole.split('\n')[-1]


@pytest.mark.parametrize(
    ('body', 'message'),
    [
        ('return 3', 'follow .* returned 3; it must return True, a text, or None'),
        ("return ['say']", 'it must return True, a text, or None'),
        ("return 'xylophone'", 'it must return a text whose words the vocabulary has'),
        ('return notes.nothing', r'raised AttributeError: .*nothing'),
    ],
)
def test_what_a_function_may_not_return_is_named(tmp_path, body, message):
    with pytest.raises(ValueError, match=rf'^reinforce.turns.episode: (?s:.*){message}'):
        groups_of(own(tmp_path, body))


def test_an_unknown_kind_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"'gate' must be one of .*; nearest: 'gated'"):
        make_rules(turns__episode='gate')


@pytest.mark.slow
def test_mixed_groups_are_trained_and_resumed_bit_for_bit(tmp_path):
    """Half of the attempts are refined; rows have samples that share their prompt."""
    changes = {
        'turns__episode': own(tmp_path, 'return len(notes.responses[0]) % 2 == 0'),
        'turns__discount': 0.5,
        'objective__kl': 'k1',
        'objective__kl_coef': 0.05,
        'samples_per_row': 2,
        'num_minibatches': 2,
        'advantage__step_coef': 0.0,
    }
    for budget in (1, 2):
        test_trainer.run(tmp_path / 'parted', ('actor',), **changes, token_budget=budget)
    parted, _, rows = test_trainer.run(tmp_path / 'parted', ('actor',), **changes)
    whole, _, expected = test_trainer.run(tmp_path / 'whole', ('actor',), **changes)
    assert rows == expected and len(rows) > 1
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, parted, whole)))
    values = stored_values(tmp_path / 'whole')
    turns = [len(json.loads(line)['terms']) for _, text in values for line in text.splitlines()]
    assert set(turns) == {1, 2}
