"""The setting of arXiv 2411.16579: Llama 3 8B on GSM8K and MATH, all weights trained.

configs/released/llama3_8b_mathcritique.py

AdamW at 5e-6, cosine, no warm-up, clip 1; 256 rows of 4096 tokens; bfloat16 over float32 weights;
3 rounds, each from the base; 5 attempts a question and as many refinements of a wrong one, of which
one right one is kept.
mathcritique/problems.jsonl holds the training problems and then the test problems,
mathcritique/critiques.jsonl the critiques; models/llama3_8b/ the converted model and its tokenizer.
"""

from ml_collections import ConfigDict

from elenchus.configs import lab
from elenchus.configs.released import shapes

SAMPLING = {
    'engine': {
        'num_slots': 256,
        'max_length': 4096,
        'chunk_steps': 32,
        'prompt_buckets': (512, 1024, 2048, 3072),
        'insert_rows': (256,),
        'compact_slots': (),
        'compact_lengths': (1024, 2048),
    },
    'attempt_tokens': 1024,
    'critique_tokens': 1280,
    'refinement_tokens': 1024,
    'score': {'rows': 256, 'lengths': (1024, 2048, 3072)},
}


def default() -> ConfigDict:
    optimizer = shapes.adamw(5e-6, schedule='cosine', warmup_fraction=0.0)
    made = shapes.config(
        shapes.LLAMA3_8B, 'models/llama3_8b', optimizer, template='llama3', num_steps=100
    )
    made.model.max_length = 4096
    made.data.update(
        {
            'source': 'jsonl',
            'path': 'mathcritique/problems.jsonl',
            'num_train': 14973,
            'num_test': 500,
        }
    )
    made.sampling.update(SAMPLING)
    made.train.update({'rows': 256, 'length': 4096})
    made.actor.num_problems = 14973
    made.critique.update(
        {
            'num_problems': 14973,
            'annotator': 'file',
            'annotator_path': 'mathcritique/critiques.jsonl',
        }
    )
    made.evaluate.num_problems = 500
    made.improve.num_problems = 14973
    # A sample a row: as many rows as a pod of 256 chips needs. With up to 64 chips, 4.
    made.reinforce.update({'num_problems': 32, 'num_samples': 8, 'samples_per_row': 1})
    made.reinforce.update({'length': 2048, 'critic_length': 3072})
    return made


def get_config(arg: str = 'default') -> ConfigDict:
    lab.check_variant('llama3_8b_mathcritique', arg, ('default',))
    return default()
