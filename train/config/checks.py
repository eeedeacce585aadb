"""Checks of settings that depend on other sections; each dataclass checks its own fields."""

from elenchus.sampling.exploration.explorers import EXPLORERS
from elenchus.train.config.run_settings import (
    REINFORCED,
    CritiqueSettings,
    EvaluateSettings,
    ImproveSettings,
    RunSettings,
)
from elenchus.train.rl.settings import TRAINED_ROLES, max_response_tokens


def check_counts(s: RunSettings) -> None:
    """Raises ValueError where a stage asks for more problems or samples than there are."""
    for name, asked, limit in (
        ('actor.num_problems', s.actor.num_problems, s.data.num_train),
        ('critique.num_problems', s.critique.num_problems, s.data.num_train),
        ('improve.num_problems', s.improve.num_problems, s.data.num_train),
        ('reinforce.num_problems', s.reinforce.num_problems, s.data.num_train),
        ('evaluate.num_problems', s.evaluate.num_problems, s.data.num_test),
    ):
        if not 1 <= asked <= limit:
            raise ValueError(f'{name}={asked} must be in [1, {limit}]')
    if not 0 <= s.actor.teacher_error_rate <= 1:
        raise ValueError(f'actor.teacher_error_rate={s.actor.teacher_error_rate} must be in [0, 1]')
    for name in ('num_examples', 'num_rounds', 'tokens'):
        if getattr(s.self_talk, name) < 1:
            raise ValueError(f'self_talk.{name}={getattr(s.self_talk, name)} must be at least 1')
    _check_improve(s.improve)
    check_critique(s.critique, temperature=s.sampling.temperature)
    _check_evaluate(s.evaluate)
    if s.reinforce.critic_rewards.located and s.data.source != 'lab':
        raise ValueError(
            f'reinforce.critic_rewards.located={s.reinforce.critic_rewards.located} needs known '
            f'first errors, which data.source={s.data.source!r} has not: set it to 0'
        )


def check_lora(s: RunSettings) -> None:
    """Raises ValueError where a stage's adapters contradict what they are put on."""
    sections = {'actor': s.actor, 'critic': s.critic}
    trained_on = {('reinforce', p) for stage in s.stages for p in REINFORCED.get(stage, ())}
    if s.improve.restart == 'last':
        trained_on.add(('improve', 'actor'))
    for name, player in sorted(trained_on):
        own, given = sections[player].lora, getattr(s, name).lora
        if own.rank and given != own:
            raise ValueError(
                f'{name}.lora={given} trains the adapters of the {player} on: it must be '
                f'{player}.lora={own}'
            )
    if s.base.quantize == 'none':
        return
    for stage in s.stages:
        section = trained_by(s, stage)
        if section is not None and not section.lora.rank:
            raise ValueError(
                f'base.quantize={s.base.quantize!r} is of a base frozen under adapters, but stage '
                f"{stage!r} trains all weights: set its lora.rank, or base.quantize='none'"
            )


def trained_by(s: RunSettings, stage: str):
    """The section of a stage that trains a player; None of others."""
    own = {'actor': s.actor, 'critic': s.critic, 'self_talk': s.self_talk}
    own |= dict.fromkeys(REINFORCED, s.reinforce)
    return s.improve if stage in EXPLORERS else own.get(stage)


def _check_improve(s: ImproveSettings) -> None:
    explore = s.explore
    for name, value, least in (
        ('num_rounds', s.num_rounds, 1),
        ('num_monitored', s.num_monitored, 0),
        ('explore.num_attempts', explore.num_attempts, 1),
        ('explore.num_refinements', explore.num_refinements, 1),
        ('explore.num_guided_rounds', explore.num_guided_rounds, 0),
        ('explore.num_uniform_rounds', explore.num_uniform_rounds, 0),
        ('explore.min_correct', explore.min_correct, 1),
        ('explore.token_budget', explore.token_budget, 0),
        ('explore.keep', explore.keep, 1),
        ('explore.keep_refined', explore.keep_refined, 0),
    ):
        if value < least:
            raise ValueError(f'improve.{name}={value} must be at least {least}')
    if s.controller != 'none' and s.candidates.num_problems > s.num_problems:
        raise ValueError(
            f'improve.candidates.num_problems={s.candidates.num_problems} must be at most '
            f'{s.num_problems}, improve.num_problems'
        )


def _check_evaluate(s: EvaluateSettings) -> None:
    for name in ('num_attempts', 'num_rounds', 'num_draws', 'num_bins', 'num_resamples'):
        if getattr(s, name) < 1:
            raise ValueError(f'evaluate.{name}={getattr(s, name)} must be at least 1')
    if not 0 < s.confidence < 1:
        raise ValueError(f'evaluate.confidence={s.confidence} must be in (0, 1), such as 0.95')
    if s.beam.width and not 1 <= s.beam.num_problems <= s.num_problems:
        raise ValueError(
            f'evaluate.beam.num_problems={s.beam.num_problems} must be in [1, {s.num_problems}], '
            'evaluate.num_problems'
        )


def check_critique(s: CritiqueSettings, *, temperature: float) -> None:
    """Raises ValueError where a number of the critique data makes no sense."""
    for name, least in (
        ('num_attempts', 1),
        ('num_relocated', 0),
        ('num_inserted', 0),
        ('raised_temperature', temperature),
        ('num_rollouts', 1),
        ('filter_samples', 0),
    ):
        if getattr(s, name) < least:
            raise ValueError(f'critique.{name}={getattr(s, name)} must be at least {least}')
    if not 0 <= s.filter_successes <= s.filter_samples:
        raise ValueError(
            f'critique.filter_successes={s.filter_successes} must be in [0, {s.filter_samples}], '
            'the number of critique.filter_samples'
        )
    for name in ('rollout_threshold', 'level_balance'):
        if not 0 <= getattr(s, name) <= 1:
            raise ValueError(f'critique.{name}={getattr(s, name)} must be in [0, 1]')
    if not 0 <= s.correct_share < 1:
        raise ValueError(f'critique.correct_share={s.correct_share} must be in [0, 1)')


def check_lengths(
    s: RunSettings,
    longest_question: int,
    *,
    longest_guide: int = 0,
    longest_hint: int = 0,
    overhead: int = 1,
) -> None:
    """Raises ValueError where a conversation of the longest turns would not fit a shape.

    A guide is shown to an annotator behind the attempt, a hint to the actor behind the question.
    `overhead` is the most tokens that stand between two turns.
    """
    sampling = s.sampling
    attempt = longest_question + overhead + sampling.attempt_tokens
    criticised = attempt
    if s.evaluate.num_rounds > 1:  # a refinement becomes the next round's attempt
        criticised = max(attempt, longest_question + overhead + sampling.refinement_tokens)
    critique = criticised + overhead + sampling.critique_tokens
    refinement = critique + overhead + sampling.refinement_tokens
    hinted = longest_question + longest_hint
    prompt = max(critique, attempt + longest_guide, hinted) + overhead
    talked = longest_question + overhead + s.self_talk.tokens
    alone = hinted + overhead + sampling.attempt_tokens
    whole = max(refinement, critique + longest_guide, alone, talked)
    written = {
        p: max_response_tokens(p, s.reinforce.turns.episode, sampling.limits, overhead=overhead)
        for p in TRAINED_ROLES
    }
    for name, size, needed in (
        ('reinforce.length', s.reinforce.length, overhead + longest_question + written['actor']),
        (
            'reinforce.critic_length',
            s.reinforce.critic_length,
            overhead + attempt + written['critic'],
        ),
        ('sampling.score.lengths[-1]', sampling.score.lengths[-1], critique),
        ('sampling.engine.prompt_buckets[-1]', sampling.engine.prompt_buckets[-1], prompt),
        ('sampling.engine.max_length', sampling.engine.max_length, whole),
        ('model.max_length', s.model.max_length, sampling.engine.max_length),
        ('model.max_length', s.model.max_length, s.train.length),
    ):
        if size < needed:
            shown = max(longest_guide, longest_hint)
            guide = f' and the longest guide {shown}' if shown else ''
            raise ValueError(
                f'{name}={size} must be at least {needed}: the longest question has '
                f'{longest_question} tokens{guide}; set it so, or self_talk.tokens and '
                'sampling.*_tokens lower'
            )
