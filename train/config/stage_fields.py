"""Which fields of the config a stage reads, so that others may change after it is complete.

A stage depends on the fields of its own sections and, by the models and data that it reads, on
those of the stages before it (config/players.py). `train/run/directory.py` compares only these
with the config that the stage started with.
"""

from collections.abc import Mapping

from elenchus.sampling.exploration.explorers import EXPLORERS
from elenchus.train.config.players import stages_read
from elenchus.train.config.run_settings import MAY_CHANGE, REINFORCED, RunSettings

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
}
"""Stage -> the sections that it reads itself."""

TEST_FIELDS = ('data.test_source', 'data.test_path', 'data.test_split', 'data.num_test')
"""Fields that only stages with test problems read, which are those that read `evaluate`."""


def reads(s: RunSettings, stage: str, field: str) -> bool:
    """Returns whether the result of a stage of this run depends on a field, such as 'train.rows'.

    The order of stages is no such field: what it decides is which stages' models are read.
    """
    if field in MAY_CHANGE:
        return False
    return any(_reads_itself(s, name, field) for name in closure(s, stage))


def closure(s: RunSettings, stage: str) -> tuple[str, ...]:
    """Returns a stage and all stages that it depends on, those of this run only."""
    names, waiting = [], [stage]
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.append(name)
            waiting += [parent for parent in stages_read(s, name) if parent in s.stages]
    return tuple(names)


def _reads_itself(s: RunSettings, stage: str, field: str) -> bool:
    sections = (*ALL_STAGES, *SECTIONS[stage])
    if stage in EXPLORERS and s.improve.retrain_critic:
        sections += ('critic', 'critique')
    if stage == 'base' and field == 'base.quantize':  # of how later stages hold it in memory
        return False
    if field in TEST_FIELDS and 'evaluate' not in sections:
        return False
    return any(field == name or field.startswith(f'{name}.') for name in sections)
