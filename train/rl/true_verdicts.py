"""Groups of a critic that imitates true verdicts beside an actor that is rewarded.

The objective of RL^V (arXiv 2505.04842) is that of reinforcement plus the likelihood of the true
verdict on each sampled solution. With `reinforce.critiques='true'` a critic's rows are such
verdicts. No model samples them: their loss is the cross-entropy of the whole distribution, weighted
by their reward, without a baseline, ratio or penalty.
"""

from collections.abc import Sequence

from elenchus.data import records
from elenchus.data.critiques.grammars import Critique
from elenchus.data.records import Problem
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.train.rl.rollouts import Groups, RolloutSetup
from elenchus.train.rl.settings import RewardRules


def write_true_verdicts(
    setup: RolloutSetup, rules: RewardRules, problems: Sequence[Problem], *, seed: int
) -> tuple[Groups, int]:
    """Samples `num_samples` attempts at each problem, and writes the true verdict behind each.

    A verdict is a critique without steps in the critic's grammar. Returns (groups, sampled tokens).
    """
    del rules  # what is written does not depend on rewards
    models = setup.models
    attempts = episode_lib.sample_attempts(
        models.sampler,
        models.actor,
        problems,
        judge=models.judge,
        spec=SampleSpec(setup.num_samples, setup.method, seed, 0),
    )
    episodes = [
        episode_lib.add_critique(
            models.sampler.chat,
            attempt,
            models.grammar.write(Critique((), bool(attempt.attempt.facts.correct), '')),
            grammar=models.grammar,
        )
        for attempt in attempts
    ]
    return records.group_episodes(problems, episodes), episode_lib.sampled_tokens(attempts)
