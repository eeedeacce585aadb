"""Settings of evaluation without a run: scripts.evaluate, scripts.judge and scripts.chat.

configs/evaluate.py                            no prompts: a model as it was trained here
configs/evaluate.py:mathcritique               prompts of configs/prompts.py, for an instruct model
configs/evaluate.py:deepseek-r1+processbench   those of two presets, for other roles

Model, tokenizer and all lengths follow from the model and the questions; the sections of training
are not read.
"""

from ml_collections import ConfigDict

from elenchus.configs import defaults, derive, prompts


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns the settings; `arg` is 'default', or names of presets of prompts, joined by +."""
    names = arg.split('+')
    for name in names:
        derive.check_variant('evaluate', name, ('default', *prompts.PRESETS))
    config = defaults.get_config()
    config.prompts.update(prompts.several(*(name for name in names if name != 'default')))
    config.evaluate.oracle = False
    config.evaluate.uptake.num_problems = 0
    derive.set_lengths(config, question=256, attempt=320, critique=512, refinement=320)
    # Prompts are packed into rows, so few rows are enough, and each number of rows is a program. A
    # part has more problems than slots: finished ones are replaced.
    config.sampling.engine.update(
        num_slots=32,
        decode_batch_sizes=(8,),  # the last of a set: 0.78 of the whole time with SmolLM2 on a CPU
        prefill_batch_sizes=(1, 4),
        min_prefill_use=0.5,
    )
    config.sampling.score.rows = 16
    config.sampling.part_size = 128
    return config
