"""Guide-GRPO: only failed groups are hinted; the ratio is on the plain prompt."""

from elenchus.configs.methods import guide_grpo
from elenchus.data import records
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import rollouts
from tests.support import fake_engine
from tests.support.rollout_cases import PROBLEMS, make_setup


def test_a_failed_group_is_sampled_again_without_its_hint_and_others_stay():
    settings = build.build(RunSettings, guide_grpo.get_config('default')).reinforce
    setup, engine = make_setup(lambda role, request, seed: fake_engine.ids_of('#### 99'))
    facts = [(True, False), (False, False)]
    groups = [
        records.RolloutGroup(
            problem,
            tuple(
                records.Episode(
                    problem.id,
                    problem.level,
                    (
                        *setup.models.sampler.chat.question_turns(problem.question),
                        records.Turn('attempt', (6,), (5,), facts=records.TurnFacts(correct=right)),
                    ),
                )
                for right in rights
            ),
        )
        for problem, rights in zip(PROBLEMS, facts, strict=False)
    ]
    share = settings.turns.hint_share
    (kept, retried), tokens = rollouts.retry_with_hints(setup, groups, share=share, seed=0)
    assert kept is groups[0] and tokens == engine.tokens > 0
    assert all(e.attempt.facts.hinted for e in retried)
    assert [[turn.role for turn in e.turns] for e in retried] == [['question', 'attempt']] * 4


def test_the_hint_is_a_third_of_the_reference():
    problem = records.Problem('p', 'q', '1', 'a\nb\nc\nd\ne\nf', 1, 'lab')
    assert rollouts.hint(problem, guide_grpo.CHANGES['reinforce.turns.hint_share']) == 'a\nb'
