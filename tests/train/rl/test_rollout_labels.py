"""Labels of the attempts that critics judge, by continuations from the end of each line."""

import dataclasses

import pytest

from elenchus.configs import gsm8k, lab
from elenchus.data.lab import task
from elenchus.train.config import build, checks
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import rollouts
from elenchus.train.rl.settings import ReinforceSettings
from tests.support import fake_engine
from tests.support.rollout_cases import PROBLEMS, answer, make_rules, make_setup


def sample(rule, **changes):
    """(critic groups, tokens, engine) of an engine that answers by a rule, with rollouts."""
    setup, engine = make_setup(rule)
    setup = setup._replace(**{'num_rollouts': 4, 'rollout_threshold': 0.5} | changes)
    rules = make_rules('critic', critic_rewards__helpful=0.0, critic_rewards__located=1.0)
    groups, tokens = rollouts.sample_critic_groups(setup, rules, PROBLEMS, seed=0)
    return groups, tokens, engine


def continued(fails_from):
    """A rule: attempts are the solution with a wrong answer; continuations fail from a line on."""

    def rule(role, request, seed):
        if role != 'attempt':
            return answer(role, request, seed)
        lines = task.solve(fake_engine.question_of(request)).split('\n')
        parts = fake_engine.parse_request(None, request).opening
        done = len([line for line in parts.split('\n') if line.strip()])
        wrong = done == 0 or done > fails_from
        lines = lines[done:]
        if wrong:
            lines[-1] = lines[-1][:-1] + str((int(lines[-1][-1]) + 1) % 10)
        return fake_engine.ids_of('\n'.join(lines))

    return rule


@pytest.mark.parametrize('fails_from', [0, 1, 99])
def test_the_first_error_is_the_first_line_after_which_rollouts_fail(fails_from):
    groups, tokens, engine = sample(continued(fails_from))
    assert tokens == engine.tokens
    for group in groups:
        num_lines = len(task.solve(group.problem.question).split('\n'))
        facts = {episode.attempt.facts for episode in group}
        assert len(facts) == 1  # one attempt of a group is labelled once
        (fact,) = facts
        assert fact.correct is False and fact.steps_correct is False
        # Where all continuations succeed, the answer's line alone is wrong.
        assert fact.first_error == min(fails_from, num_lines - 1)


def test_a_right_attempt_from_which_all_succeed_has_no_error():
    groups, _, _ = sample(always_right)
    for group in groups:
        facts = group[0].attempt.facts
        assert facts.correct and facts.first_error is None and facts.steps_correct


def always_right(role, request, seed):
    if role != 'attempt':
        return answer(role, request, seed)
    opening = fake_engine.parse_request(None, request).opening
    done = len([line for line in opening.split('\n') if line.strip()])
    lines = task.solve(fake_engine.question_of(request)).split('\n')[done:]
    return fake_engine.ids_of('\n'.join(lines))


def test_off_the_labels_are_the_judges_and_nothing_else_is_sampled():
    setup, engine = make_setup(answer)
    rules = make_rules('critic', critic_rewards__helpful=0.0, critic_rewards__located=1.0)
    plain, tokens = rollouts.sample_critic_groups(setup, rules, PROBLEMS, seed=0)
    labelled, more, _ = sample(answer)
    assert tokens < more
    for before, after in zip(plain, labelled, strict=True):
        for old, new in zip(before, after, strict=True):
            same = {'first_error': None, 'steps_correct': None}
            assert [t.tokens for t in old.turns] == [t.tokens for t in new.turns]
            assert dataclasses.replace(old.attempt.facts, **same) == dataclasses.replace(
                new.attempt.facts, **same
            )


def test_rollouts_that_nothing_reads_are_refused():
    config = lab.get_config('default').reinforce
    config.num_rollouts = 8
    with pytest.raises(ValueError, match=r'reinforce\.num_rollouts=8 labels steps') as error:
        build.build(ReinforceSettings, config)
    assert '\n' not in str(error.value)
    config.critic_rewards.verdict_of = 'steps'
    assert build.build(ReinforceSettings, config).num_rollouts == 8


@pytest.mark.parametrize('changes', [{'located': 1.0}, {'verdict_of': 'steps'}])
def test_text_has_no_labels_without_rollouts(changes):
    config = gsm8k.get_config('tiny')
    config.reinforce.critic_rewards.update(changes)
    with pytest.raises(ValueError, match=r'reinforce\.num_rollouts above 0'):
        checks.check_counts(build.build(RunSettings, config))
    config.reinforce.num_rollouts = 4
    checks.check_counts(build.build(RunSettings, config))
