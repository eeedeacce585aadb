"""RefCritic: several refinements of each critique that calls its attempt wrong."""

from elenchus.configs.methods import ref_critic
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import rollouts
from tests.support.rollout_cases import PROBLEMS, answer, make_rules, make_setup


def test_a_critique_is_worth_what_its_refinements_become():
    s = build.build(RunSettings, ref_critic.get_config('default')).reinforce
    setup, engine = make_setup(answer, num_refinements=s.num_refinements, refine=s.refine)
    rules = make_rules('critic', critic_rewards__helpful=s.critic_rewards.helpful)
    groups, _ = rollouts.sample_critic_groups(setup, rules, PROBLEMS[:4], seed=7)
    for group in groups:
        for episode in group:
            refined = 0.0 if episode.critique.facts.verdict else 0.5  # every other one is right
            before = float(episode.attempt.facts.correct)
            assert episode.critique.facts.helpful == (refined - before if refined else 0.0)
    called_wrong = sum(e.critique.facts.verdict is False for g in groups for e in g)
    assert engine.num_requests('refinement') == s.num_refinements * called_wrong > 0
