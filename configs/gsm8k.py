"""GSM8K, the stages of the lab task on real text; critiques come from comparison by rule.

configs/gsm8k.py         a model of 107 million parameters from scratch, on accelerators
configs/gsm8k.py:tiny    a small model for a few hundred steps on two CPU cores: the loss falls and
                         samples have the right form; a score is not to be expected
configs/gsm8k.py:smoke   every stage with tiny numbers

The data is downloaded; --config.data.path=DIR reads DIR/train.jsonl and DIR/test.jsonl instead, and
--config.data.test_source=svamp evaluates on other problems.
"""

from ml_collections import ConfigDict

from elenchus.configs import lab

MODEL = {
    'vocab_size': 8192,
    'num_layers': 16,
    'embed_dim': 768,
    'mlp_dim': 2048,
    'num_heads': 12,
    'num_kv_heads': 4,
    'head_dim': 64,
    'max_length': 1024,
    'windows': (0,),
    'rope_theta': 10000.0,
    'local_rope_theta': 0.0,
    'rope_scaling': None,
    'norm_epsilon': 1e-6,
    'zero_centered_norms': False,
    'post_norms': False,
    'qkv_bias': False,
    'qk_norm': True,
    'query_scale_dim': 0,
    'attention_soft_cap': 0.0,
    'logits_soft_cap': 0.0,
    'scale_embeddings': False,
    'tie_embeddings': True,
    'activation': 'silu',
    'dtype': 'bfloat16',
    'param_dtype': 'float32',
    'attention': 'einsum',
    'remat': 'dots',
    'scan_layers': True,
    'logits_chunk': 256,
}

# The longest question has 240 tokens; 99 of 100 solutions have at most 224, critiques 367.
SAMPLING = {
    'engine': {
        'num_slots': 256,
        'max_length': 1024,
        'chunk_steps': 32,
        'prompt_buckets': (256, 512, 800),
        'insert_rows': (32, 128),
        'compact_slots': (64,),
        'compact_lengths': (512,),
        'parked_rows': 0,
        'parked_length': 0,
        'draft_tokens': 0,
        'draft_ngram': 0,
        'cache_dtype': 'model',
        'quantize': 'none',
        'prefill_chunk': 0,
    },
    'attempt_tokens': 224,
    'critique_tokens': 320,
    'refinement_tokens': 224,
    'temperature': 0.7,
    'top_k': 0,
    'top_p': 1.0,
    'min_p': 0.0,
    'score': {'rows': 64, 'lengths': (512, 800)},
    'part_size': 250,
}


TRAIN = {
    'rows': 64,
    'length': 1024,
    'num_microbatches': 1,
    'log_every': 10,
    'checkpoint_every': 100,
    'keep_checkpoints': 2,
    'nonfinite': 'stop',
    'compare_hosts_every': 100,
}

DATA = {
    'source': 'gsm8k',
    'path': '',
    'test_source': '',
    'test_path': '',
    'data_dir': '.cache/data',
    'seed': 0,
    'num_train': 7473,
    'num_test': 1319,
}

EVALUATE = {
    'num_problems': 1319,
    'num_attempts': 4,
    'refine': 'wrong',
    'num_rounds': 1,
    'oracle': True,
    'beam': {**lab.BEAM, 'max_steps': 24},
    'num_draws': 20,
    'num_bins': 10,
    'num_resamples': 1000,
    'confidence': 0.95,
}


REINFORCE = {
    **lab.REINFORCE,
    'num_steps': 100,
    'num_problems': 32,
    'length': 512,
    'critic_length': 800,
    'overlong_tokens': 32,
    'checkpoint_every': 20,
    'optimizer': lab.optimizer(0.0003, schedule='constant'),
}


def fit(num_steps: int, learning_rate: float, **changes) -> dict:
    return {'num_steps': num_steps, 'optimizer': lab.optimizer(learning_rate, **changes)}


def get_config(arg: str = 'default') -> ConfigDict:
    config = ConfigDict(
        {
            'seed': 0,
            'mesh': (1, -1, 1),
            'stages': lab.STAGES,
            'model': MODEL,
            'tokenizer': {'kind': 'train', 'path': '', 'vocab_size': 8192, 'template': 'elenchus'},
            'data': DATA,
            'sampling': SAMPLING,
            'train': TRAIN,
            **stages(),
        }
    )
    variants = {'default': lambda config: config, 'tiny': tiny, 'smoke': smoke}
    lab.check_variant('gsm8k', arg, variants)
    return variants[arg](config)


def stages() -> dict:
    return {
        'base': {
            'checkpoint': '',
            'num_documents': 7473,
            'shares': lab.shares(attempt=1.0),
            'fit': fit(400, 0.01, weight_decay=0.1),
            'quantize': 'none',
        },
        'actor': {
            'num_problems': 7473,
            'refinements_per_problem': 1,
            'guided_per_problem': 0,
            'misconceptions': 0.0,
            'fit': fit(200, 0.003),
            'lora': lab.lora(),
        },
        'critique': {**lab.CRITIQUE, 'num_problems': 4000, 'raised_temperature': 1.0},
        'critic': {'checkpoint': '', 'fit': fit(200, 0.003), 'lora': lab.lora()},
        'evaluate': EVALUATE,
        'self_talk': {**lab.SELF_TALK, 'num_examples': 8000, 'tokens': 640, 'fit': fit(200, 0.003)},
        'improve': {
            **lab.IMPROVE,
            'num_problems': 4000,
            'num_rounds': 3,
            'explore': {**lab.EXPLORE, 'num_refinements': 5},
            'num_monitored': 500,
            'candidates': {
                **lab.CANDIDATES,
                'num_problems': 300,
                'num_attempts': 8,
                'target': 4,
            },
            'fit': fit(200, 0.003),
            'lora': lab.lora(),
        },
        'reinforce': REINFORCE,
    }


TINY_MODEL = {
    'vocab_size': 2048,
    'num_layers': 3,
    'embed_dim': 128,
    'mlp_dim': 352,
    'num_heads': 4,
    'num_kv_heads': 2,
    'head_dim': 32,
    'dtype': 'float32',
    'remat': 'none',
    'scan_layers': False,
}

TINY_ENGINE = {
    'num_slots': 64,
    'max_length': 960,
    'prompt_buckets': (288, 480, 736),
    'insert_rows': (32,),
    'compact_slots': (16,),
    'compact_lengths': (480,),
}

TINY_SAMPLING = {
    'attempt_tokens': 192,
    'critique_tokens': 256,
    'refinement_tokens': 192,
    'score': {'rows': 16, 'lengths': (736,)},
    'part_size': 20,
}


def tiny(config: ConfigDict) -> ConfigDict:
    config.model.update(TINY_MODEL)
    config.tokenizer.vocab_size = 2048
    config.data.update({'num_train': 2000, 'num_test': 60})
    config.sampling.engine.update(TINY_ENGINE)
    config.sampling.update(TINY_SAMPLING)
    config.train.update({'rows': 6, 'length': 768})
    config.base.update({'num_documents': 2000, 'fit': fit(300, 0.02)})
    config.actor.num_problems = 1000
    for stage in (config.actor, config.critic, config.self_talk, config.improve):
        stage.fit.update(fit(60, 0.005))
    config.critique.update({'num_problems': 60, 'num_attempts': 2})
    config.evaluate.update({'num_problems': 60, 'num_attempts': 2})
    config.self_talk.update({'num_examples': 200, 'tokens': 448})
    config.improve.update({'num_problems': 40, 'num_rounds': 1, 'num_monitored': 20})
    config.improve.explore.update({'num_attempts': 2, 'num_refinements': 2})
    config.improve.candidates.update({'num_problems': 10, 'num_attempts': 2})
    config.reinforce.update(
        {'num_steps': 4, 'num_problems': 4, 'num_samples': 4, 'length': 480, 'checkpoint_every': 2}
    )
    config.reinforce.update({'critic_length': 736, 'samples_per_row': 2})
    return config


def smoke(config: ConfigDict) -> ConfigDict:
    config = tiny(config)
    config.model.update({'vocab_size': 1024, 'num_layers': 2, 'embed_dim': 32, 'mlp_dim': 64})
    config.model.update({'num_heads': 2, 'num_kv_heads': 1, 'head_dim': 16})
    config.tokenizer.vocab_size = 1024
    config.data.update({'num_train': 60, 'num_test': 10})
    config.sampling.engine.update(
        {
            'num_slots': 16,
            'max_length': 512,
            'prompt_buckets': (480,),
            'insert_rows': (16,),
            'compact_slots': (),
            'compact_lengths': (),
        }
    )
    config.sampling.update({'attempt_tokens': 24, 'critique_tokens': 96, 'refinement_tokens': 24})
    config.sampling.update({'score': {'rows': 16, 'lengths': (480,)}, 'part_size': 5})
    config.train.update({'rows': 8, 'log_every': 1, 'checkpoint_every': 3})
    config.base.num_documents = 60
    config.self_talk.update({'num_examples': 20, 'num_rounds': 2, 'tokens': 120})
    for stage in (config.base, config.actor, config.critic, config.self_talk, config.improve):
        stage.fit.num_steps = 8
    config.actor.num_problems = 20
    config.critique.update({'num_problems': 10, 'filter_samples': 2, 'filter_successes': 0})
    config.evaluate.update({'num_problems': 10, 'num_rounds': 2, 'num_resamples': 100})
    config.evaluate.beam.update({'width': 2, 'expansions': 2, 'max_steps': 4, 'num_problems': 4})
    config.improve.update({'num_problems': 10, 'num_monitored': 4})
    config.reinforce.update({'num_steps': 3, 'num_problems': 2, 'samples_per_row': 1})
    return config
