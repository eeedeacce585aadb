"""The setting of arXiv 2411.16579: Llama 3 8B on GSM8K and MATH, all weights trained.

configs/released/llama3_8b_mathcritique.py

AdamW at 5e-6, cosine, no warm-up, clip 1; 256 rows of 4096 tokens; bfloat16 over float32 weights;
3 rounds, each from the base; 5 attempts a question and 5 refinements of each wrong one, of which
one right refinement is kept.
mathcritique/problems.jsonl holds the training problems and then the test problems,
mathcritique/critiques.jsonl the critiques; models/llama3_8b/ the converted model and its tokenizer.
"""

from ml_collections import ConfigDict

from elenchus.configs import derive
from elenchus.configs.released import shapes


def default() -> ConfigDict:
    """Returns the setting of the paper."""
    optimizer = shapes.adamw(5e-6, schedule='cosine', warmup_fraction=0.0)
    config = shapes.config(
        shapes.LLAMA3_8B, 'models/llama3_8b', optimizer, template='llama3', num_steps=100
    )
    derive.set_lengths(
        config, question=768, attempt=1024, critique=1280, refinement=1008, overhead=5, multiple=256
    )
    # A pod of 256 chips samples in 8 shards of 32 slots. Of more shards, each would have so few
    # free slots at a time that most of a prefill were padding.
    config.sampling.engine.update(
        num_slots=256,
        prompt_buckets=(256, 512, 1024, 2048, 3072),
        prefill_batch_sizes=(8,),
        min_prefill_use=0.67,
        decode_batch_sizes=(),
        decode_cache_lengths=(1024, 2048),
        tensor_shards=32,
    )
    config.sampling.score.update(rows=256, lengths=(1024, 2048, 3072))
    config.data.update(
        source='jsonl',
        path='mathcritique/problems.jsonl',
        num_train=14973,
        num_test=500,
    )
    config.train.rows = 256
    config.actor.num_problems = 14973
    config.critique.update(
        num_problems=14973,
        annotator='file',
        annotator_path='mathcritique/critiques.jsonl',
    )
    config.evaluate.num_problems = 500
    config.improve.num_problems = 14973
    # A sample a row: as many rows as a pod of 256 chips needs. With up to 64 chips, 4.
    config.reinforce.update(num_problems=32, num_samples=8, samples_per_row=1)
    return config


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns a variant of the config."""
    derive.check_variant('llama3_8b_mathcritique', arg, ('default',))
    return default()
