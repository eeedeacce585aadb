"""Checks settings against those of other sections; each section checks its own fields."""

import dataclasses

from elenchus.data.text.chat_templates import Template
from elenchus.model import lora as lora_lib
from elenchus.model import quantization
from elenchus.model.ranges import MOST
from elenchus.sampling.exploration.explorers import EXPLORERS
from elenchus.train.config import players
from elenchus.train.config.first_calls import check_first_calls
from elenchus.train.config.run_settings import PREFERRED, REINFORCED, RunSettings
from elenchus.train.config.sampling_settings import SamplingSettings
from elenchus.train.rl.advantages import reads_values
from elenchus.train.rl.settings import TRAINED_ROLES

MOST_IDS = 2**31
"""Request ids that there are."""


def check_settings(s: RunSettings) -> None:
    """Raises ValueError if sections contradict each other; needs no data, so it comes first."""
    players.check_stages(s)
    check_counts(s)
    check_labels(s)
    check_true_verdicts(s)
    check_ids(s)
    check_trees(s)
    check_rewards(s)
    check_reflection(s)
    check_experts(s)
    check_lora(s)
    check_first_calls(s)


def check_true_verdicts(s: RunSettings) -> None:
    """Raises ValueError for what needs sampled critiques, or gives true verdicts other weights."""
    r = s.reinforce
    if r.critiques == 'sampled':
        return
    if not any('critic' in REINFORCED.get(stage, ()) for stage in s.stages):
        raise ValueError(
            f'reinforce.critiques={r.critiques!r} is read by stages that train the critic: '
            "'reinforce_critic', 'reinforce_both'; nearest: 'sampled'"
        )
    for name, value, is_right, near in (
        ('samples_per_row', r.samples_per_row, r.samples_per_row == 1, 1),
        ('num_rollouts', r.num_rollouts, not r.num_rollouts, 0),
        ('advantage.outcome', r.advantage.outcome, not reads_values(r.advantage.outcome), 'grpo'),
        ('critic_rewards.verdict', r.critic_rewards.verdict, r.critic_rewards.verdict > 0, 1.0),
        ('critic_rewards.helpful', r.critic_rewards.helpful, not r.critic_rewards.helpful, 0.0),
        ('critic_rewards.located', r.critic_rewards.located, not r.critic_rewards.located, 0.0),
        ('critic_rewards.verdict_of', of := r.critic_rewards.verdict_of, of == 'answer', 'answer'),
    ):
        if not is_right:
            raise ValueError(
                f"reinforce.{name}={value!r} does not go with reinforce.critiques='true'; nearest: "
                f'{near!r}'
            )


def check_counts(s: RunSettings) -> None:
    """Raises ValueError if a stage asks for more problems, or other data, than the run has.

    Besides numbers of problems it checks the refinements of an explorer, the raised temperature,
    and labels of steps for the critic's rewards.
    """
    preferred = min(s.prefer.num_problems, s.data.num_train)
    if set(PREFERRED) & set(s.stages):
        preferred = s.prefer.num_problems
    for name, count, limit in (
        ('prefer.num_problems', preferred, s.data.num_train),
        ('actor.num_problems', s.actor.num_problems, s.data.num_train),
        ('critique.num_problems', s.critique.num_problems, s.data.num_train),
        ('improve.num_problems', s.improve.num_problems, s.data.num_train),
        ('reinforce.num_problems', s.reinforce.num_problems, s.data.num_train),
        ('evaluate.num_problems', s.evaluate.num_problems, s.data.num_test),
    ):
        if not 1 <= count <= limit:
            raise ValueError(f'{name}={count} must be in [1, {limit}]; nearest: {limit}')
    explores = 'prefer' in s.stages and s.prefer.explorer == 'critique_in_the_loop'
    if explores and not s.prefer.num_refinements:
        raise ValueError(
            "prefer.num_refinements=0 leaves prefer.explorer='critique_in_the_loop' nothing to "
            "sample; nearest: 1, or explorer='vanilla'"
        )
    if s.critique.raised_temperature < s.sampling.temperature:
        raise ValueError(
            f'critique.raised_temperature={s.critique.raised_temperature} must be at least '
            f'{s.sampling.temperature}, sampling.temperature; nearest: {s.sampling.temperature}'
        )
    has_labels = s.data.source == 'lab' or s.reinforce.num_rollouts
    if s.reinforce.critic_rewards.located and not has_labels:
        raise ValueError(
            f'reinforce.critic_rewards.located={s.reinforce.critic_rewards.located} needs known '
            f'first errors, which data.source={s.data.source!r} lacks: set it to 0, or '
            'reinforce.num_rollouts above 0'
        )
    if s.reinforce.critic_rewards.verdict_of == 'steps' and not has_labels:
        raise ValueError(
            "reinforce.critic_rewards.verdict_of='steps' needs known steps, which "
            f"data.source={s.data.source!r} lacks: set it to 'answer', or reinforce.num_rollouts "
            'above 0'
        )


def check_labels(s: RunSettings) -> None:
    """Raises ValueError if labels of lines need continuations that the run does not sample."""
    for section, reads, remedy in (
        ('critique', s.critique.annotator == 'monte_carlo', "critique.annotator='monte_carlo'"),
        ('reinforce', s.reinforce.num_rollouts > 0, 'reinforce.num_rollouts above 0'),
    ):
        labels = getattr(s, section).labels
        if labels != 'threshold' and not reads:
            raise ValueError(
                f'{section}.labels={labels!r} reads continuations of lines, and none are sampled: '
                f"set {remedy}; nearest: labels='threshold'"
            )


def check_ids(s: RunSettings) -> None:
    """Raises ValueError if a stage has more requests than ids, which are int32."""
    beam, explore = s.evaluate.beam, s.improve.explore
    samples = s.critique.most_attempts * max(s.critique.filter_samples, 1)
    uptake = s.evaluate.num_attempts * s.evaluate.uptake.num_samples
    tree = s.sampling.tree.num_nodes * s.sampling.tree.num_rollouts
    explored = explore.ids_per_question * (tree if 'tree_search' in s.stages else 1)
    preferred = s.prefer.ids_per_question * (tree if s.prefer.explorer == 'tree_search' else 1)
    for name, problems, each in (
        ('evaluate.num_attempts', s.evaluate.num_problems, s.evaluate.num_attempts),
        ('evaluate.uptake.num_samples', s.evaluate.uptake.num_problems, uptake),
        ('evaluate.beam.width', beam.num_problems, beam.ids_per_question),
        ('critique.num_attempts', s.critique.num_problems, samples),
        ('sampling.tree.num_nodes', s.evaluate.tree_problems, tree),
        ('improve.explore.num_attempts', s.improve.num_problems, explored),
        ('reinforce.num_samples', s.reinforce.num_problems, s.reinforce.num_samples),
        ('prefer.num_attempts', s.prefer.num_problems, preferred),
    ):
        if problems * each > MOST:
            raise ValueError(
                f'{name} asks for {each} samples at each of {problems} problems, more than {MOST} '
                f'in all; nearest: {max(1, MOST // problems)} samples'
            )
    check_rollout_ids(s)


def check_rollout_ids(s: RunSettings) -> None:
    """Raises ValueError if critiques by rollouts may need more ids than there are.

    Each attempt has one for every token of every rollout (train/stages/annotators.py).
    """
    critique, tokens = s.critique, s.sampling.attempt_tokens
    each = critique.most_attempts * tokens * critique.num_rollouts
    used = critique.annotator == 'monte_carlo' and 'critique' in s.stages
    if used and critique.num_problems * each > MOST_IDS:
        raise ValueError(
            f"critique.num_problems={critique.num_problems}: critique.annotator='monte_carlo' may "
            f'need {critique.most_attempts} * {tokens} * {critique.num_rollouts} request ids '
            '(attempts, sampling.attempt_tokens, critique.num_rollouts) at each, more than '
            f'{MOST_IDS} in all; nearest: {max(1, MOST_IDS // each)}'
        )


def check_trees(s: RunSettings) -> None:
    """Raises ValueError if a tree search has no tokens for a child, or reads labels of a test."""
    stages, tree = players.searching_stages(s), s.sampling.tree
    if 'evaluate' in stages and tree.reads_labels:
        names = [name for name, weight in tree.values if weight]
        raise ValueError(
            f'evaluate.tree_problems={s.evaluate.tree_problems}: sampling.tree.values={names} '
            "reads what is right, which a test may not; nearest: 'agreement', or tree_problems=0"
        )
    least = tree.least_tokens(longest_turns(s).limits)
    if stages and 0 < tree.num_tokens < least:
        raise ValueError(
            f'sampling.tree.num_tokens={tree.num_tokens} must be 0 or at least {least}, what one '
            f'child, its value and the end of an attempt may take; nearest: {least}'
        )


def check_rewards(s: RunSettings) -> None:
    """Raises ValueError if a stage of reinforcement learning has nothing to learn from."""
    rewards = {'actor': s.reinforce.rewards, 'critic': s.reinforce.critic_rewards}
    advantage = s.reinforce.advantage
    for stage, player in [(name, p) for name in s.stages for p in REINFORCED.get(name, ())]:
        if player == 'critic' and not advantage.outcome_coef:
            raise ValueError(
                f'reinforce.advantage.outcome_coef=0.0 leaves the critic of stage {stage!r} no '
                'advantage, since steps are those of attempts; nearest: 1.0'
            )
        weights = dataclasses.asdict(rewards[player])
        terms = [name for name, weight in weights.items() if isinstance(weight, float)]
        is_silent = not any(weight for _, weight in rewards[player].functions)
        is_silent &= not any(weights[name] for name in terms)
        if is_silent and not (s.reinforce.teacher or player == 'actor' and advantage.step_coef):
            field = 'rewards' if player == 'actor' else 'critic_rewards'
            raise ValueError(
                f'reinforce.{field} has only weights of 0, so the {player} of stage {stage!r} '
                f'learns nothing: set one of {terms}; nearest: reinforce.{field}.{terms[0]}=1.0'
            )


def check_reflection(s: RunSettings) -> None:
    """Raises ValueError if a stage trains on log-probabilities of fused logits.

    They depend on the drafts of the sampler's steps, so the trainer cannot compute them again.
    """
    weight, reinforced = s.sampling.engine.reflection_weight, set(REINFORCED) & set(s.stages)
    if weight and reinforced:
        raise ValueError(
            f'sampling.engine.reflection_weight={weight} changes the log-probabilities of what is '
            f'sampled, which stage {min(reinforced)!r} trains on and cannot compute again; '
            'nearest: 0.0'
        )


def check_template(s: RunSettings, template: Template) -> None:
    """Raises ValueError if a stage trains two turns that the template writes differently."""
    trains_actor = any('actor' in REINFORCED.get(stage, ()) for stage in s.stages)
    if template.prefix and trains_actor and s.reinforce.turns.episode != 'attempt':
        raise ValueError(
            f'reinforce.turns.episode={s.reinforce.turns.episode!r} trains two turns, but under '
            f'tokenizer.template={template.name!r} only the last turn has '
            f"{template.prefix[0]!r}: use tokenizer.template='chatml', or the episode 'attempt'"
        )
    reads_changed = s.prompts.thinking == 'strip' or {'question', 'attempt', 'paragraphs'} & set(
        s.prompts.refinement.fields
    )
    if trains_actor and reads_changed and s.reinforce.turns.episode != 'attempt':
        raise ValueError(
            f'reinforce.turns.episode={s.reinforce.turns.episode!r} trains two turns, but under '
            "prompts.thinking='strip', or a prompts.refinement.instruction that quotes the "
            "attempt, the second does not read the first as it was written; nearest: 'attempt'"
        )


def check_lora(s: RunSettings) -> None:
    """Raises ValueError if a stage's adapters do not fit the model that they train."""
    for stage in players.SECTION_OF.keys() & (set(s.stages) - {'evaluate'}):  # which trains none
        section = players.SECTION_OF[stage]
        alone = PREFERRED.get(stage, 'critic' if stage == 'critic' else 'actor')
        trained = REINFORCED.get(stage, (alone,))
        for player in trained if section != 'improve' or s.improve.restart == 'last' else ():
            start = players.SECTION_OF.get(players.start_of(s, stage, player))
            lora, expected = getattr(s, section).lora, getattr(s, start).lora if start else None
            if expected is not None and expected.rank and lora != expected:
                raise ValueError(
                    f'{section}.lora={lora} continues the adapters of the {player}: it must be '
                    f'{start}.lora={expected}'
                )
    if s.base.quantize == 'none':
        return
    for stage in s.stages:
        section = trained_by(s, stage)
        if section is not None and not section.lora.rank:
            raise ValueError(
                f'base.quantize={s.base.quantize!r} is for a base frozen under adapters, but '
                f"stage {stage!r} trains all weights: set its lora.rank, or base.quantize='none'"
            )


def check_experts(s: RunSettings) -> None:
    """Raises ValueError for what models with experts cannot have: int8, and adapters on experts."""
    quantization.check(s.base.quantize, s.model, name='base.quantize')
    quantization.check(s.sampling.engine.quantize, s.model, name='sampling.engine.quantize')
    sections = {players.SECTION_OF[stage] for stage in players.SECTION_OF.keys() & set(s.stages)}
    adapters = {name: getattr(s, name).lora for name in sorted(sections - {'evaluate'})}
    if 'evaluate' in s.stages and s.evaluate.adapt.make != 'none':
        adapters['evaluate.adapt'] = s.evaluate.adapt.lora
    for section, settings in adapters.items():
        lora_lib.check_targets(settings, s.model, name=f'{section}.lora')


def trained_by(s: RunSettings, stage: str):
    """Returns the section of a stage that trains a player; None for other stages."""
    sections = {'actor': s.actor, 'critic': s.critic, 'self_talk': s.self_talk}
    sections |= dict.fromkeys(REINFORCED, s.reinforce) | dict.fromkeys(PREFERRED, s.prefer)
    return s.improve if stage in EXPLORERS else sections.get(stage)


def longest_turns(s: RunSettings) -> SamplingSettings:
    """Returns the settings of sampling with the longest attempt of any stage, perhaps a talk."""
    longest_attempt = max(players.attempt_tokens(s, stage) for stage in s.stages)
    return dataclasses.replace(s.sampling, attempt_tokens=longest_attempt)


def check_lengths(
    s: RunSettings,
    longest_question: int,
    *,
    longest_guide: int = 0,
    longest_hint: int = 0,
    overhead: int = 1,
    turn_overhead: int = 1,
) -> None:
    """Raises ValueError if a conversation of the longest turns does not fit a shape.

    A guide follows the attempt in an annotator's prompt, a hint the question in the actor's.
    `overhead` is the largest number of tokens between two turns, `turn_overhead` that between
    those of an episode of `reinforce`.
    """
    sampling, reinforce = longest_turns(s), s.reinforce
    attempt = longest_question + overhead + sampling.attempt_tokens
    criticised = attempt
    scored = any(reinforce.reward_rules(p).needs_refinement_scores for p in TRAINED_ROLES)
    # A refinement is criticised as the next round's attempt, in a tree, or for its reward.
    refines = bool(players.searching_stages(s)) and s.sampling.tree.grow == 'refinement'
    if s.evaluate.num_rounds > 1 or scored or refines:
        criticised = max(attempt, longest_question + overhead + sampling.refinement_tokens)
    critique = criticised + overhead + sampling.critique_tokens
    refinement = critique + overhead + sampling.refinement_tokens
    hinted = longest_question + longest_hint
    prompt = max(critique, attempt + longest_guide, hinted) + overhead
    corrected = attempt + turn_overhead  # an instruction in place of a critique
    prompt = max(prompt, corrected)
    refinement = max(refinement, corrected + sampling.refinement_tokens)
    talked = longest_question + overhead + s.self_talk.tokens
    alone = hinted + overhead + sampling.attempt_tokens
    whole = max(refinement, critique + longest_guide, alone, talked) + sampling.engine.lookup.room
    written = {
        p: reinforce.longest_response(p, sampling.limits, overhead=turn_overhead)
        for p in TRAINED_ROLES
    }
    criticised_row = overhead + attempt + written['critic']
    _check_sizes(
        ('reinforce.length', reinforce.length, overhead + longest_question + written['actor']),
        ('reinforce.critic_length', reinforce.critic_length, criticised_row),
        ('sampling.score.lengths[-1]', sampling.score.lengths[-1], critique),
        ('sampling.engine.prompt_buckets[-1]', sampling.engine.prompt_buckets[-1], prompt),
        ('sampling.engine.max_length', sampling.engine.max_length, whole),
        ('model.max_length', s.model.max_length, sampling.engine.max_length),
        ('model.max_length', s.model.max_length, s.train.length),
        question=longest_question,
        guide=max(longest_guide, longest_hint),
    )


def _check_sizes(*rows: tuple[str, int, int], question: int, guide: int) -> None:
    """Raises ValueError for the first (name, size, size needed) that is too small."""
    for name, size, needed in rows:
        if size < needed:
            longest_guide = f' and a guide of {guide}' if guide else ''
            raise ValueError(
                f'{name}={size} must be at least {needed}, for a question of {question} tokens'
                f'{longest_guide}; raise it, or lower self_talk.tokens and sampling.*_tokens'
            )
