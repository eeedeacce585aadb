"""Selective sample replay: what is stored, what is drawn, and that it survives a restart."""

import collections

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.train.rl import credit, replay, rollouts
from tests.support import rollout_cases
from tests.support.fake_engine import CHAT
from tests.support.rollout_cases import PROBLEMS, assign_credit, make_rules
from tests.train.rl.test_trainer import PLAIN, run, settings_of

RULES = make_rules('actor')
BY_ID = {problem.id: problem for problem in PROBLEMS}


def group_of(number, rights):
    """A group of a problem with attempts right and wrong."""
    problem = PROBLEMS[number]
    return records.RolloutGroup(
        problem,
        tuple(
            records.Episode(
                problem.id,
                problem.level,
                (
                    *CHAT.question_turns(problem.question),
                    CHAT.text_turn('attempt', f'#### {i}').with_facts(correct=right, answer=str(i)),
                ),
            )
            for i, right in enumerate(rights)
        ),
    )


def value(group):
    return assign_credit(group, rules=RULES)


def sampled_of(*groups):
    return rollouts.SampledGroups(list(groups), len(groups), len(groups), 0, 0)


def fill(groups, stored, *, seed=0, problems=BY_ID):
    rng = np.random.default_rng(seed)
    return replay.fill(sampled_of(*groups), stored, problems=problems, value=value, rng=rng)


EVEN, RARE, DEAD = (True, True, False, False), (True, False, False, False), (False,) * 4


def test_only_groups_with_variance_are_stored_the_newest_of_them():
    groups = [group_of(0, EVEN), group_of(1, DEAD), group_of(2, RARE), group_of(3, EVEN)]
    stored = replay.store([], groups, value=value, most=2)
    assert [item['problem'] for item in stored] == [PROBLEMS[2].id, PROBLEMS[3].id]
    # GRPO's advantages: +-1 of two and two; sqrt(3) and -1 / sqrt(3) of one in four.
    expected = (3**0.5 + 3 / 3**0.5) / 4
    assert [item['weight'] for item in stored] == pytest.approx([expected, 1.0], rel=1e-3)
    assert replay.store(stored, groups[:1], value=value, most=2)[0] == stored[1]


def test_stored_groups_stand_in_for_those_without_variance():
    stored = replay.store([], [group_of(0, EVEN), group_of(2, RARE)], value=value, most=9)
    fresh = [group_of(1, DEAD), group_of(3, EVEN), group_of(4, DEAD), group_of(5, DEAD)]
    filled, count = fill(fresh, stored)
    assert count == 2 and filled.num_informative == 3 and len(filled.groups) == 4
    assert filled.groups[0] == fresh[1] and filled.groups[3] == fresh[3]
    assert {g.problem.id for g in filled.groups[1:3]} == {PROBLEMS[0].id, PROBLEMS[2].id}
    for group in filled.groups[1:3]:
        assert all(e.attempt.facts.replayed for e in group)
        assert not value(group).zero_variance


@given(
    st.lists(st.sampled_from([EVEN, RARE, DEAD]), min_size=1, max_size=6),
    st.lists(st.sampled_from([EVEN, RARE]), max_size=4),
    st.integers(0, 9),
)
def test_the_batch_keeps_its_size_and_all_that_is_informative(fresh, earlier, seed):
    groups = [group_of(i, rights) for i, rights in enumerate(fresh)]
    stored = replay.store(
        [], [group_of(i, rights) for i, rights in enumerate(earlier)], value=value, most=9
    )
    filled, count = fill(groups, stored, seed=seed)
    alive = [g for g in groups if not value(g).zero_variance]
    assert filled.groups[: len(alive)] == alive and len(filled.groups) == len(groups)
    assert count == min(len(groups) - len(alive), len(stored))
    assert filled.num_informative == len(alive) + count
    assert [value(g).zero_variance for g in filled.groups] == [
        i >= filled.num_informative for i in range(len(groups))
    ]
    assert fill(groups, stored, seed=seed) == (filled, count)


@pytest.mark.slow
def test_a_group_is_drawn_in_proportion_to_its_advantages():
    stored = replay.store([], [group_of(0, EVEN), group_of(2, RARE)], value=value, most=9)
    drawn = collections.Counter(
        fill([group_of(1, DEAD)], stored, seed=seed)[0].groups[0].problem.id for seed in range(2000)
    )
    weights = [item['weight'] for item in stored]
    share = weights[0] / sum(weights)  # 0.536
    assert abs(drawn[PROBLEMS[0].id] / 2000 - share) < 3 * (share * (1 - share) / 2000) ** 0.5


def test_problems_that_are_no_longer_there_are_not_replayed():
    stored = replay.store([], [group_of(0, EVEN)], value=value, most=9)
    filled, count = fill([group_of(1, DEAD)], stored, problems={})
    assert (count, filled.num_informative) == (0, 0)


def test_replay_needs_a_ratio_to_the_policy_that_sampled():
    assert settings_of().reuses_update_logprobs
    assert not settings_of(replay_groups=4).reuses_update_logprobs
    with pytest.raises(ValueError, match=r'on_policy=True with 1 updates .* replay_groups=4'):
        settings_of(replay_groups=4, objective__preset='reinforce')


def test_the_ratio_of_replayed_tokens_is_to_the_sampler():
    groups = [group_of(i, EVEN) for i in range(2)]
    marked = [e.with_turn_facts('attempt', replayed=True) for e in groups[1]]
    groups[1] = records.RolloutGroup(groups[1].problem, tuple(marked))
    batch, metrics = rollout_cases.batch_of(groups, informative=2, cap=2.0)
    is_trained = batch.loss_mask > 0
    # The trainer says -2 everywhere; the turns here were written, with no log-probability (0).
    assert (batch.old_logprobs[:4][is_trained[:4]] == -2).all()
    assert (batch.old_logprobs[4:][is_trained[4:]] == 0).all()
    assert metrics['sampler/gap_max'] == 2.0


@pytest.mark.slow
def test_a_run_with_replay_continues_bit_for_bit(tmp_path, monkeypatch):
    """A part of the groups, by their problem, is made to have no variance when it is sampled."""
    assign = credit.assign_credit

    def without_variance(group, *args, **options):
        values = assign(group, *args, **options)
        if sum(map(ord, group[0].problem_id)) % 2 or group[0].attempt.facts.replayed:
            return values
        none = [{n: 0 * steps for n, steps in e.items()} for e in values.advantages]
        return values._replace(advantages=none)

    monkeypatch.setattr(credit, 'assign_credit', without_variance)
    changes = {**PLAIN, 'replay_groups': 4, 'num_steps': 4}
    run(tmp_path / 'parted', ('actor',), token_budget=1, **changes)
    (models, _, rows), (again, _, rows_again) = (
        run(tmp_path / name, ('actor',), **changes) for name in ('whole', 'parted')
    )
    assert rows == rows_again and any(row['reward/groups_replayed'] for row in rows)
    jax.tree.map(np.testing.assert_array_equal, models, again)
