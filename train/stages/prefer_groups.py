"""Groups that pairs are taken from: responses to a question, or critiques of an attempt."""

import collections
from collections.abc import Sequence

from elenchus.data import records
from elenchus.data.records import Episode, Problem, RolloutGroup
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.exploration.explorers import explore
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.train.config.prefer_settings import PreferSettings
from elenchus.train.pair_rules import Pair
from elenchus.train.rl import rollouts
from elenchus.train.rl.settings import Player
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages.scoring import score_responses


def sample_groups(
    models: ModelPair,
    problems: Sequence[Problem],
    *,
    player: Player,
    settings: PreferSettings,
    reads_scores: bool,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> tuple[list[RolloutGroup], int]:
    """Samples the groups of a player; returns them and the number of sampled tokens.

    With `reads_scores` the critic scores the actor's responses. Critiques have the fact `helpful`
    if refinements follow them (`num_refinements`).
    """
    options = {'settings': settings, 'samplers': samplers, 'seed': seed, 'stage': stage}
    if player == 'critic':
        episodes, num_tokens = sample_critiques(models, problems, **options)
        attempted = [p for p in problems for _ in range(settings.num_attempts)]
        return records.group_episodes(attempted, episodes), num_tokens
    episodes, num_tokens = sample_responses(models, problems, **options)
    if reads_scores:
        episodes, count = add_scores(models, episodes, samplers=samplers, stage=stage)
        num_tokens += count
    by_problem = collections.defaultdict(list)
    for episode in episodes:
        by_problem[episode.problem_id].append(episode)
    return [RolloutGroup(p, tuple(by_problem[p.id])) for p in problems], num_tokens


def sample_responses(
    models: ModelPair,
    problems: Sequence[Problem],
    *,
    settings: PreferSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> tuple[Sequence[Episode], int]:
    """Samples the actor's responses with an explorer; returns them and the tokens."""
    explored = settings.explore
    trees = samplers.trees() if settings.explorer == 'tree_search' else None
    parts = stage.parts('explored', problems, description=f'explore {settings.explorer}')
    for part in parts.missing():
        part.write(
            *explore(
                explored,
                models,
                part.items,
                explorer=settings.explorer,
                seed=seed,
                method=samplers.method(),
                first_id=part.first * explored.ids_per_question,
                trees=trees,
            )
        )
    return parts.read()


def add_scores(
    models: ModelPair,
    episodes: Sequence[Episode],
    *,
    samplers: Samplers,
    stage: StageFolder,
) -> tuple[Sequence[Episode], int]:
    """Adds the critic's scores to the last turns; returns the episodes, and the critiques' tokens.

    A refinement is read as an attempt is: after the question, alone.
    """
    parts = stage.parts('considered', episodes, description='score')
    for part in parts.missing():
        bare = [episode_lib.as_attempt(models.sampler, e) for e in part.items]
        scored, num_tokens = score_responses(models, bare, samplers=samplers)
        items = map(rollouts.with_scores_of_last_turn, part.items, scored)
        part.write(list(items), num_tokens)
    return parts.read()


def sample_critiques(
    models: ModelPair,
    problems: Sequence[Problem],
    *,
    settings: PreferSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> tuple[Sequence[Episode], int]:
    """Samples critiques of attempts, and refinements that measure how much each critique helps.

    Returns the episodes, and the number of tokens sampled. Without `num_refinements` nothing is
    measured.
    """
    s, method = settings, samplers.method()
    parts = stage.parts('explored', problems, description='sample critiques')
    for part in parts.missing():
        tokens_before = models.sampler.engine.tokens
        attempts = episode_lib.sample_attempts(
            models.sampler,
            models.actor,
            part.items,
            judge=models.judge,
            spec=SampleSpec(s.num_attempts, method, seed, part.first * s.num_attempts),
        )
        first = part.first * s.num_attempts * s.num_critiques
        episodes = episode_lib.sample_critiques(
            models.sampler,
            models.critic,
            [e for e in attempts for _ in range(s.num_critiques)],
            grammar=models.grammar,
            spec=SampleSpec(1, method, derive_seed(seed, 'critique'), first),
        )
        if s.num_refinements:
            setup = rollouts.RolloutSetup(
                models, samplers.scorer(), method, s.num_critiques, s.num_refinements, 'always'
            )
            repeated = [p for p in part.items for _ in range(s.num_attempts * s.num_critiques)]
            episodes, _ = rollouts.measure_helpfulness(
                setup, episodes, repeated, seed=seed, first=first
            )
        part.write(episodes, models.sampler.engine.tokens - tokens_before)
    return parts.read()


def behind_question(sampler: episode_lib.Sampler, pair: Pair) -> Pair:
    """Returns a pair whose responses directly follow the question, as attempts."""
    chosen, rejected = (episode_lib.as_attempt(sampler, side) for side in pair[:2])
    return Pair(chosen, rejected, pair.offset)
