"""Restarts: samples that begin with a part of another one, and what of them is trained."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.data.lab import task
from elenchus.train.rl import restarts, rollouts
from tests.support import fake_engine
from tests.support.fake_engine import CHAT, EOS, TOKENIZER
from tests.support.rollout_cases import METHOD, PROBLEMS, answer, make_rules, make_setup
from tests.train.rl.test_trainer import PLAIN, run

HERE = 'tests.train.rl.test_restarts'
PLAN = []


def planned(group, rng):
    return PLAN[0](group, rng)


def right_only(group, rng):
    return PLAN[0](group, rng)


def own(group, rng):
    return PLAN[0](group, rng)


right_only.keeps_right = own.trains_beginning = True


def rule(role, request, seed):
    """As `answer`; what continues a beginning is right, if that is right or says `wrong`."""
    if not request.opening:
        return answer(role, request, seed)
    text = TOKENIZER.decode(request.prompt[len(request.prompt) - request.opening :])
    solution = task.solve(fake_engine.question_of(request))
    done = sum(bool(line.strip()) for line in text.split('\n'))
    rest = solution.split('\n')[min(done, solution.count('\n')) :]
    digit = rest[-1][-1] if request.id % 3 else str((int(rest[-1][-1]) + 1) % 10)
    return fake_engine.ids_of('\n'.join([*rest[:-1], rest[-1][:-1] + digit]))


def groups_of(plan=None, name='planned'):
    """(groups, tokens, engine) of a rollout of the actor, with restarts by `plan`."""
    PLAN[:] = [plan]
    setup, engine = make_setup(rule)
    rules = make_rules('actor', turns__restart=f'{HERE}:{name}' if plan else 'none')
    groups, tokens = rollouts.sample_actor_groups(setup, rules, PROBLEMS, seed=3)
    assert tokens == engine.tokens
    return groups, tokens, engine


def nowhere(group, rng):
    return [None] * len(group)


def trained(turn):
    """Indices of the tokens of an attempt that are trained."""
    question = CHAT.question_turns('eve 7 ; eve ?')
    example = CHAT.example((*question, turn), trained=('attempt',), weights=None, last_only=True)
    return example.loss_mask[-len(turn.tokens) :]


def test_a_function_that_restarts_nothing_changes_nothing():
    assert groups_of()[:2] == groups_of(nowhere)[:2]


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 60))
def test_a_restart_begins_with_the_tokens_of_its_source_and_trains_what_follows(
    place, source, size
):
    def plan(group, rng):
        count = min(size, len(group[source].attempt.tokens))
        return [(source, count, '') if i == place else None for i in range(len(group))]

    before, _, _ = groups_of()
    after, _, _ = groups_of(plan)
    for old, new in zip(before, after, strict=True):
        kept = old[source].attempt
        count = len([t for t in kept.tokens[:size] if t != EOS])
        turn = new[place].attempt
        assert turn.tokens[:count] == kept.tokens[:count] and len(turn.tokens) > count
        assert turn.forced == tuple(range(count))
        assert turn.num_sampled == len(turn.tokens) - count
        np.testing.assert_array_equal(trained(turn), np.arange(len(turn.tokens)) >= count)
        assert turn.facts.restarted is bool(kept.facts.correct)
        assert turn.facts.correct is not None and turn.step_ends[-1] == len(turn.tokens)
        others = [i for i in range(len(old)) if i != place]
        assert [old[i] for i in others] == [new[i] for i in others]


def test_a_text_stands_behind_the_beginning_and_is_not_trained():
    before, _, _ = groups_of()
    after, _, engine = groups_of(lambda group, rng: [(0, 3, ' wrong\n'), *[None] * 3])
    for old, new in zip(before, after, strict=True):
        turn = new[0].attempt
        assert CHAT.text(turn).startswith(f'{TOKENIZER.decode(old[0].attempt.tokens[:3])} wrong\n')
        assert len(turn.forced) == turn.forced[-1] + 1 > 3
    assert engine.calls == 2


@pytest.mark.parametrize(
    ('size', 'count', 'num_tools'), [(3, 3, 0), (7, 6, 0), (9, 9, 1), (12, 12, 1)]
)
def test_a_restart_has_the_tools_answers_that_it_begins_with_and_no_part_of_one(
    size, count, num_tools
):
    """A stale place of an answer would leave tokens untrained that are sampled now."""
    tokens = fake_engine.ids_of('eve 7 ; ben : eve - 4 = 3 ; ben 3\n #### 3')
    tool = records.ToolTurn('calculator', 'answered', 6, 9)
    source = CHAT.sampled_turn('attempt', tokens, (-1.0,) * len(tokens), tools=(tool,))
    item = restarts.Restart(0, size, '')
    opening = restarts._opening(CHAT, source, item, kept=False, function=None)
    assert opening.tokens == source.tokens[:count] and opening.tools == (tool,) * num_tools


def test_its_own_beginning_may_stay_trained():
    plan = lambda group, rng: [(i, 4, ' wrong\n') for i in range(4)]  # noqa: E731
    before, _, _ = groups_of()
    after, _, _ = groups_of(plan, name='own')
    for old, new in zip(before, after, strict=True):
        for first, turn in zip(old, (e.attempt for e in new), strict=True):
            assert turn.tokens[:4] == first.attempt.tokens[:4]
            assert turn.logprobs[:4] == first.attempt.logprobs[:4] and min(turn.forced) == 4
            assert trained(turn)[:4].all() and not trained(turn)[list(turn.forced)].any()


def test_a_beginning_of_another_sample_is_never_trained():
    after, _, _ = groups_of(lambda group, rng: [(1, 4, ''), *[None] * 3], name='own')
    assert all(new[0].attempt.forced == (0, 1, 2, 3) for new in after)


def test_where_only_right_ones_are_kept_the_others_stay_as_they_were():
    plan = lambda group, rng: [(i, 0, '') for i in range(4)]  # noqa: E731
    before, _, _ = groups_of()
    every, _, _ = groups_of(plan)
    after, _, _ = groups_of(plan, name='right_only')
    outcomes = {e.attempt.facts.correct for group in every for e in group}
    assert outcomes == {True, False}
    for old, new, kept in zip(before, every, after, strict=True):
        for first, second, third in zip(old, new, kept, strict=True):
            assert third == (second if second.attempt.facts.correct else first)


def test_a_beginning_without_room_behind_it_changes_nothing():
    longest = fake_engine.LIMITS['attempt']
    plan = lambda group, rng: [(0, 3, ' wrong' * longest), *[None] * 3]  # noqa: E731
    assert groups_of(plan)[0] == groups_of()[0]


def test_the_generator_depends_on_seed_and_problem_alone():
    seen = []

    def plan(group, rng):
        seen.append((group.problem.id, int(rng.integers(10**9))))
        return [None] * len(group)

    groups_of(plan)
    groups_of(plan)
    first, again = seen[: len(PROBLEMS)], seen[len(PROBLEMS) :]
    assert first == again and len({number for _, number in first}) == len(PROBLEMS)


@pytest.mark.parametrize(
    'returned',
    [
        None,
        [],
        [None] * 3,
        [(0, 1, '')] * 5,
        [(4, 1, ''), None, None, None],
        [(-1, 1, ''), None, None, None],
        [(0, 10**6, ''), None, None, None],
        [(0, -1, ''), None, None, None],
        [(0, 1.5, ''), None, None, None],
        [(0, True, ''), None, None, None],
        [(0, 1), None, None, None],
        [(0, 1, None), None, None, None],
        [[0, 1, ''], None, None, None],
        'none',
    ],
)
def test_what_is_no_restart_is_refused(returned):
    with pytest.raises(ValueError, match=r'^reinforce\.turns\.restart: planned \(.*4 samples'):
        groups_of(lambda group, rng: returned)


def test_a_word_that_the_vocabulary_lacks_is_refused():
    with pytest.raises(ValueError, match=r'^reinforce\.turns\.restart: planned .*vocabulary'):
        groups_of(lambda group, rng: [(0, 1, ' Wait'), None, None, None])


def test_a_cut_off_source_and_an_empty_group_list_are_fine():
    setup, _ = make_setup(rule)
    PLAN[:] = [nowhere]
    options = {'name': f'{HERE}:planned', 'seed': 0}
    assert restarts.restart(setup.models, METHOD, [], **options) == ([], 0)
    turn = records.Turn('attempt', CHAT.header('attempt'), tuple(TOKENIZER.encode('eve')), (-1.0,))
    episode = records.Episode(PROBLEMS[0].id, 1, (*CHAT.question_turns('eve 7 ; eve ?'), turn))
    group = records.RolloutGroup(PROBLEMS[0], (episode,) * 2)
    PLAN[:] = [lambda group, rng: [(0, 1, ''), None]]
    ((first, second),), _ = restarts.restart(setup.models, METHOD, [group], **options)
    assert first.attempt.tokens[:1] == turn.tokens and second == episode
    assert dataclasses.replace(first, turns=first.turns[:-1]).turns == episode.turns[:-1]


@pytest.mark.slow
def test_the_trainer_recomputes_what_was_sampled_behind_a_beginning(tmp_path):
    PLAN[:] = [lambda group, rng: [None, None, (0, 3, ' wrong\n'), (3, 2, ' wrong\n')]]
    changes = {'turns__restart': f'{HERE}:own', 'num_steps': 2, 'num_minibatches': 2}
    models, _, rows = run(tmp_path, ('actor',), **PLAIN, **changes)
    assert models and all(row['sampler/gap_max'] < 1e-4 for row in rows)
