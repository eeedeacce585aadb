"""Which fields of the config a stage reads, so that others may change after it is complete.

A stage depends on the fields of its own sections and, by the models and data that it reads, on
those of the stages before it (config/players.py). `train/run/directory.py` compares only these
with the config that the stage started with.

Three kinds of fields never bind a run: those that change no result (`MAY_CHANGE`), those that the
config of an earlier version of the code did not have (`EARLIER`), and paths of inputs, whose
content is compared instead (`PATHS`, train/run/stage_inputs.py).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from elenchus.sampling.exploration.explorers import EXPLORERS
from elenchus.train.checkpoints.saved_models import EARLIER_DEFAULTS
from elenchus.train.config.players import searching_stages, stages_read
from elenchus.train.config.run_settings import PREFERRED, REINFORCED, RunSettings

CONTENTS = (
    *('base.checkpoint', 'critic.checkpoint', 'critique.annotator_path'),
    *('improve.teacher', 'reinforce.teacher'),
)
"""Paths of models and critiques: whether there is one binds a stage, and what is there."""

PATHS = ('data.path', 'data.test_path', 'data.data_dir', 'tokenizer.path', *CONTENTS)
"""Where inputs are. The inputs themselves are compared, so that they may be moved."""

ENGINE_SIZES = tuple(
    f'sampling.engine.{name}'
    for name in (
        *('num_slots', 'max_length', 'chunk_steps', 'prompt_buckets', 'prefill_batch_sizes'),
        *('decode_batch_sizes', 'decode_cache_lengths', 'min_prefill_use', 'tensor_shards'),
        'compile_threads',
    )
)
"""How the engine schedules requests: the noise of a token depends on none of it."""

ENGINE_CACHES = tuple(
    f'sampling.engine.{name}'
    for name in (
        *('prefix_cache_rows', 'prefix_cache_length', 'prefill_chunk'),
        *('draft_tokens', 'draft_ngram'),
    )
)
"""Settings that reuse cached keys and values: they change samples only with an int8 cache."""

DRAFTING = ('sampling.engine.draft_tokens', 'sampling.engine.draft_ngram')
"""Those of ENGINE_CACHES that also change samples with a reflection, which reads drafts again."""

MAY_CHANGE = (
    *(
        'mesh',
        'context',
        'reinforce.rollout_devices',
        'train.num_microbatches',
        'model.attention',
        'model.remat',
        'model.expert_parallel',
    ),
    *('model.remat_saved', 'model.remat_offloaded', 'model.scan_layers'),
    *('model.logits_chunk', 'sampling.score.rows', 'sampling.score.lengths', 'sampling.part_size'),
    *('train.log_every', 'train.checkpoint_every', 'reinforce.checkpoint_every'),
    *('train.keep_checkpoints', 'train.keep_finished_checkpoints', 'train.nonfinite'),
    *('train.compare_hosts_every', 'data.answer.workers'),
    *('sampling.tools.workers', 'sampling.tools.isolation'),
    *('watchdog.slow_factor', 'watchdog.timeout_s', 'watchdog.stop_within_s', 'watchdog.alert'),
    *('tracking.libraries', 'tracking.project'),
    *(f'critique.api.{name}' for name in ('attempts', 'backoff_s', 'cache', 'key_variable')),
    *(f'critique.api.{name}' for name in ('parallel', 'requests_per_minute', 'timeout_s')),
    *('critique.api.prompt_price', 'critique.api.answer_price'),
    *PATHS,
    *ENGINE_SIZES,
)
"""Fields that may change when a run is continued: they do not change its result.

(Some change the order of summation, and so the last bits. A stage that has begun keeps its
`sampling.part_size`.)"""

_NO_PROMPT = {'system': '', 'instruction': '', 'prefix': '', 'examples': ()}

EARLIER: Mapping[str, Any] = {
    **{f'model.{name}': value for name, value in EARLIER_DEFAULTS.items()},
    'context': 1,
    **{
        f'prompts.{role}.{name}': value
        for role in ('attempt', 'guide', 'critique', 'refinement')
        for name, value in _NO_PROMPT.items()
    },
    'prompts.thinking': 'keep',
    'prompts.grammar': '',
    'data.blend': (),
    'data.rewrite': 'none',
    'actor.critiques': 'stated',
    'critique.form': 'mixed',
    'critique.references': 'none',
    'critique.api.base_url': 'https://api.openai.com/v1',
    'critique.api.model': 'gpt-4o',
    'critique.api.max_tokens': 1024,
    'critique.api.temperature': 0.0,
    'reinforce.teacher': '',
    'reinforce.rewards.functions': (),
    'reinforce.critic_rewards.functions': (),
    'reinforce.objective.reweigh': None,
    'reinforce.one_model': False,
    'reinforce.num_rollouts': 0,
    'reinforce.rollout_threshold': 0.4,
    'reinforce.labels': 'threshold',
    'reinforce.critiques': 'sampled',
    'actor.replay.num_documents': 0,
    'actor.replay.hidden': 'none',
    'actor.replay.hidden_coef': 100.0,
    'reinforce.replay_groups': 0,
    'reinforce.staleness': 0,
    'reinforce.rollout_devices': 0,
    'reinforce.turns.restart': 'none',
    'critique.labels': 'threshold',
    'improve.explore.refine': 'wrong',
    'reinforce.implicit.beta': 0.0,
    'reinforce.implicit.learning_rate': 0.0003,
    'reinforce.value.gamma': 1.0,
    'reinforce.value.gae_lambda': 0.95,
    'reinforce.value.whiten': True,
    'reinforce.value.clip': 0.2,
    'reinforce.value.learning_rate': 0.0003,
    'evaluate.measures': (),
    'evaluate.conditions': (),
    'watchdog.alert': '',
    'tracking.libraries': (),
    'tracking.project': 'elenchus',
    'improve.teacher': '',
    'improve.explore.guides': 'own',
    'improve.explore.accept': 'right',
    'improve.explore.player_guide': 'none',
    'improve.explore.opening': 'none',
    'improve.make': 'none',
    'improve.trains': ('response',),
    'improve.measures': (),
    'evaluate.feedback': 'critique',
    'evaluate.tree_problems': 0,
    'sampling.engine.reflection': '',
    'sampling.engine.reflection_weight': 0.0,
    'sampling.logits': 'none',
    'sampling.pause': 'none',
    'sampling.after_pause': 'stop',
    'sampling.tools.use': (),
    'self_talk.splice': 'talk',
    'evaluate.start': 'newest',
    'evaluate.critic_start': 'newest',
    'evaluate.adapt.make': 'none',
    **{
        f'{section}.fit.{name}': value
        for section in ('base', 'actor', 'critic', 'self_talk', 'improve')
        for name, value in (('reweigh', 'none'), ('read', 'same'))
    },
}
"""Field -> the value with which today's code does what it did before the field existed.

A run of an earlier version continues if its configs lack the field. Add a row with every new
field, even if the value is its default, which may change later.
"""

NEW_SECTIONS = ('prefer', 'average', 'sampling.tree', 'sampling.tools', 'evaluate.adapt')
"""Sections that the config of an earlier version of the code did not have.

Of one that a run lacks, only the fields of `EARLIER` bind it: those that say that it is not used.
"""

ALL_STAGES = (
    *('seed', 'matmul_precision', 'model', 'tokenizer', 'prompts'),
    *('data', 'base.quantize'),
)
"""Fields and sections that every stage reads."""

SECTIONS: Mapping[str, tuple[str, ...]] = {
    'base': ('base', 'train'),
    'actor': ('actor', 'train'),
    'critique': ('critique', 'sampling'),
    'critic': ('critic', 'train'),
    'evaluate': ('evaluate', 'sampling'),
    'self_talk': ('self_talk', 'critique', 'sampling', 'evaluate', 'train'),
    **dict.fromkeys(EXPLORERS, ('improve', 'actor', 'sampling', 'evaluate', 'train')),
    **dict.fromkeys(REINFORCED, ('reinforce', 'sampling', 'evaluate', 'train')),
    **dict.fromkeys(PREFERRED, ('prefer', 'sampling', 'evaluate', 'train')),
    'average': ('average', 'sampling', 'evaluate'),
}
"""Stage -> the sections that it reads itself."""

TEST_FIELDS = ('data.test_source', 'data.test_path', 'data.test_split', 'data.num_test')
"""Fields that only stages with test problems read, which are those that read `evaluate`."""

EVALUATED = tuple(
    f'evaluate.{name}'
    for name in (
        *('start', 'critic_start', 'tree_problems', 'adapt', 'beam', 'uptake', 'oracle'),
        *('measures', 'conditions', 'budget'),
    )
)
"""Fields and sections of `evaluate` that the stage of that name alone reads."""


def reads(s: RunSettings, stage: str, field: str) -> bool:
    """Returns whether the result of a stage of this run depends on a field, such as 'train.rows'.

    The order of stages is no such field: what it decides is which stages' models are read.
    """
    if field in MAY_CHANGE:
        return False
    engine = s.sampling.engine
    is_drafting = field in DRAFTING and engine.reflection_weight > 0
    if field in ENGINE_CACHES and engine.cache_dtype == 'model' and not is_drafting:
        return False
    return any(reads_itself(s, name, field) for name in closure(s, stage))


def closure(s: RunSettings, stage: str) -> tuple[str, ...]:
    """Returns a stage and all stages that it depends on, those of this run only."""
    names, waiting = [], [stage]
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.append(name)
            waiting += [parent for parent in stages_read(s, name) if parent in s.stages]
    return tuple(names)


def reads_itself(s: RunSettings, stage: str, field: str) -> bool:
    """Returns whether a field is of a section that the stage reads itself."""
    sections = (*ALL_STAGES, *SECTIONS[stage])
    if stage in EXPLORERS and s.improve.retrain_critic:
        sections += ('critic', 'critique')
    if stage == 'base' and field == 'base.quantize':  # of how later stages hold it in memory
        return False
    if stage != 'evaluate' and _is_below(field, EVALUATED):
        return False
    if field.startswith('sampling.tree.') and stage not in searching_stages(s):
        return False
    if field in TEST_FIELDS and 'evaluate' not in sections:
        return False
    return _is_below(field, sections)


def _is_below(field: str, names: Iterable[str]) -> bool:
    """Returns whether a field is one of these, or of a section that is."""
    return any(field == name or field.startswith(f'{name}.') for name in names)
