"""The generated lab task, all stages on two CPU cores.

configs/lab.py         the default run, from the shipped base model
configs/lab.py:smoke   every stage with tiny numbers, in under two minutes
configs/lab.py:base    trains the shipped base model from scratch: drills and single turns ...
configs/lab.py:conversations   ... and then, from runs/base, conversations
"""

from ml_collections import ConfigDict

STAGES = (
    'base',
    'actor',
    'critique',
    'critic',
    'evaluate',
    'vanilla',
    'critique_in_the_loop',
    'reinforce',
)


def optimizer(learning_rate: float, **changes) -> dict:
    return {
        'name': 'muon',
        'learning_rate': learning_rate,
        'adam_learning_rate': learning_rate / 7,
        'schedule': 'linear',
        'warmup_fraction': 0.05,
        'weight_decay': 0.0,
        'beta1': 0.9,
        'beta2': 0.95,
        'clip_norm': 1.0,
        **changes,
    }


def shares(**kinds) -> dict:
    all_kinds = ('drill', 'worked', 'attempt', 'critique', 'refinement')
    return dict.fromkeys(all_kinds, 0.0) | kinds


ATTENTION_AND_MLP = ('query', 'key', 'value', 'out', 'gate', 'up', 'down')


def lora(rank: int = 0, alpha: float = 32.0, targets: tuple = ATTENTION_AND_MLP) -> dict:
    """Low-rank adapters; of rank 0: none, all weights are trained."""
    return {'rank': rank, 'alpha': alpha, 'targets': targets}


MODEL = {
    'vocab_size': 64,
    'num_layers': 3,
    'embed_dim': 128,
    'mlp_dim': 352,
    'num_heads': 4,
    'num_kv_heads': 4,
    'head_dim': 32,
    'max_length': 360,
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
    'dtype': 'float32',
    'param_dtype': 'float32',
    'attention': 'einsum',
    'remat': 'none',
    'scan_layers': False,
    'logits_chunk': 512,
}

SAMPLING = {
    'engine': {
        'num_slots': 128,
        'max_length': 360,
        'chunk_steps': 16,
        'prompt_buckets': (64, 128, 280, 352),  # the last for self-talk's begun refinements
        'insert_rows': (32, 128),
        'compact_slots': (32,),
        'compact_lengths': (128, 224),
        'parked_rows': 0,  # with 400 and parked_length 144, refinements go on from their attempts
        'parked_length': 0,
        'draft_tokens': 0,
        'draft_ngram': 0,
        'cache_dtype': 'model',
        'quantize': 'none',
        'prefill_chunk': 0,
    },
    'attempt_tokens': 76,
    'critique_tokens': 156,
    'refinement_tokens': 76,
    'temperature': 0.7,
    'top_k': 0,
    'top_p': 1.0,
    'min_p': 0.0,
    'score': {'rows': 64, 'lengths': (160, 280)},
    'part_size': 100,
}

CRITIQUE = {
    'num_problems': 1000,
    'num_attempts': 4,
    'num_relocated': 1,
    'num_inserted': 2,
    'raised_temperature': 1.3,
    'annotator': 'oracle',
    'annotator_path': '',
    'num_rollouts': 8,
    'rollout_threshold': 0.4,
    'filter_samples': 0,  # with 10, filter_successes 3 is a good start
    'filter_successes': 0,
    'correct_share': 0.5,
    'level_balance': 0.0,
}

OBJECTIVES = {
    'sft': {
        'surrogate': 'logprob',
        'ratio': 'token',
        'on_policy': True,
        'clip_low': 0.0,
        'clip_high': 0.0,
        'average': 'token',
        'constant_length': 0,
        'kl': 'none',
        'kl_coef': 0.0,
        'attempt_kl_coef': 0.0,
        'entropy_coef': 0.0,
        'beta': 0.0,
    }
}
OBJECTIVES['reinforce'] = {**OBJECTIVES['sft'], 'average': 'constant', 'constant_length': 1}
OBJECTIVES['grpo'] = {
    **OBJECTIVES['sft'],
    'surrogate': 'clip',
    'on_policy': False,
    'clip_low': 0.2,
    'clip_high': 0.2,
    'average': 'sequence',
}
OBJECTIVES['dapo'] = {**OBJECTIVES['grpo'], 'clip_high': 0.28, 'average': 'token'}
OBJECTIVES['gspo'] = {
    **OBJECTIVES['grpo'],
    'ratio': 'sequence',
    'clip_low': 3e-4,
    'clip_high': 4e-4,
}
OBJECTIVES['cispo'] = {
    **OBJECTIVES['dapo'],
    'surrogate': 'cispo',
    'clip_low': 1.0,
    'clip_high': 4.0,
}
OBJECTIVES['rloo'] = {**OBJECTIVES['grpo'], 'ratio': 'product'}
OBJECTIVES['dr_grpo'] = {
    **OBJECTIVES['grpo'],
    'average': 'constant',
    'constant_length': SAMPLING['attempt_tokens'],
}
"""Presets of reinforce.objective, those of train/objective.py: **OBJECTIVES['dapo']."""

REINFORCE = {
    'num_steps': 12,
    'token_budget': 0,
    'num_problems': 16,
    'num_samples': 8,
    'num_refinements': 1,
    'refill_rounds': 0,  # DAPO: 2 or more
    'num_minibatches': 1,
    'num_epochs': 1,
    'length': 128,
    'critic_length': 280,
    'advantage': {
        'outcome': 'grpo',
        'epsilon': 1e-4,
        'outcome_coef': 1.0,
        'step_coef': 0.5,
        'steps': 'normalised',
    },
    'turns': {
        'episode': 'attempt',
        'attempt': 1.0,
        'refinement': 1.0,
        'progress': 0.0,  # SCoRe: 10, with episode 'correction' and first_phase_steps
        'discount': 0.0,
        'first_phase_steps': 0,
        'attempt_kl_coef': 0.0,
        'hint_share': 0.0,
    },
    'rewards': {'correct': 1.0, 'format': 0.0, 'length': 0.0, 'steps': 0.0, 'verdict': 0.0},
    'critic_rewards': {
        'verdict': 1.0,
        'located': 0.0,
        'helpful': 1.0,
        'format': 0.0,
        'length': 0.0,
    },
    'overlong_tokens': 16,
    'importance_cap': 0.0,
    'drop_idle': True,
    'samples_per_row': 4,
    'checkpoint_every': 10,
    'objective': OBJECTIVES['grpo'],
    'optimizer': optimizer(0.001, schedule='constant'),
    'lora': lora(),
}

BEAM = {'width': 0, 'expansions': 4, 'max_steps': 12, 'aggregate': 'min', 'num_problems': 200}

BASE = {
    'checkpoint': 'data/lab/checkpoint',
    'num_documents': 400_000,
    'shares': shares(drill=0.35, worked=0.4, attempt=0.25),
    'fit': {'num_steps': 0, 'optimizer': optimizer(0.01, weight_decay=0.1)},
    'quantize': 'none',
}

ACTOR = {
    'num_problems': 1500,
    'refinements_per_problem': 2,
    'guided_per_problem': 0,
    'misconceptions': 0.3,
    'fit': {'num_steps': 100, 'optimizer': optimizer(0.005)},
    'lora': lora(),
}

CRITIC = {
    'checkpoint': '',
    'fit': {'num_steps': 200, 'optimizer': optimizer(0.01)},
    'lora': lora(),
}

EVALUATE = {
    'num_problems': 600,
    'num_attempts': 4,
    'refine': 'wrong',
    'num_rounds': 1,
    'oracle': True,
    'beam': BEAM,
    'num_draws': 20,
    'num_bins': 10,
    'num_resamples': 1000,
    'confidence': 0.95,
}

SELF_TALK = {
    'num_examples': 1500,
    'num_rounds': 3,
    'tokens': 300,
    'learn_mistakes': True,
    'fit': {'num_steps': 200, 'optimizer': optimizer(0.01)},
    'lora': lora(),
}

EXPLORE = {
    'num_attempts': 5,
    'num_refinements': 3,
    'num_guided_rounds': 8,
    'num_uniform_rounds': 32,
    'enough': 4,
    'token_budget': 0,
    'keep': 5,
    'keep_refined': 1,
}

CANDIDATES = {
    'temperatures': (0.5, 0.7, 1.0),
    'thresholds': (0.0, 0.5, 0.9),
    'num_problems': 50,
    'num_attempts': 4,
    'target': 2,
}

IMPROVE = {
    'num_problems': 500,
    'num_rounds': 1,
    'restart': 'base',
    'demonstrations': True,
    'explore': EXPLORE,
    'weighting': 'keep',
    'balance': 'none',
    'num_monitored': 100,
    'controller': 'none',
    'candidates': CANDIDATES,
    'retrain_critic': False,
    'fit': {'num_steps': 80, 'optimizer': optimizer(0.005)},
    'lora': lora(),
}


def check_variant(name: str, arg: str, variants) -> None:
    """Raises ValueError, with a list of what there is, unless configs/NAME.py has a variant."""
    if arg not in variants:
        raise ValueError(f'configs/{name}.py:{arg}: no such variant; there are {list(variants)}')


def get_config(arg: str = 'default') -> ConfigDict:
    config = ConfigDict(
        {
            'seed': 0,
            'mesh': (-1, 1, 1),
            'stages': STAGES,
            'model': MODEL,
            'tokenizer': {'kind': 'lab', 'path': '', 'vocab_size': 0, 'template': 'elenchus'},
            'data': {
                'source': 'lab',
                'path': '',
                'test_source': '',
                'test_path': '',
                'data_dir': '.cache/data',
                'seed': 0,
                'num_train': 4000,
                'num_test': 600,
            },
            'sampling': SAMPLING,
            'train': {
                'rows': 16,
                'length': 360,
                'num_microbatches': 1,
                'log_every': 10,
                'checkpoint_every': 100,
                'keep_checkpoints': 2,
                'nonfinite': 'stop',
                'compare_hosts_every': 100,
            },
            'base': BASE,
            'actor': ACTOR,
            'critique': CRITIQUE,
            'critic': CRITIC,
            'evaluate': EVALUATE,
            'self_talk': SELF_TALK,
            'improve': IMPROVE,
            'reinforce': REINFORCE,
        }
    )
    variants = {
        'default': lambda config: config,
        'smoke': smoke,
        'base': base,
        'conversations': conversations,
    }
    check_variant('lab', arg, variants)
    return variants[arg](config)


def base(config: ConfigDict) -> ConfigDict:
    config.stages = ('base',)
    config.base.checkpoint = ''
    config.base.fit.num_steps = 900
    config.train.update({'rows': 16, 'length': 208})
    return config


def conversations(config: ConfigDict) -> ConfigDict:
    config.stages = ('base',)
    config.base.checkpoint = 'runs/base/stages/00-base/model'
    config.base.shares = shares(drill=0.1, worked=0.1, attempt=0.1, critique=0.4, refinement=0.3)
    config.base.fit.num_steps = 400
    config.train.rows = 10
    return config


def smoke(config: ConfigDict) -> ConfigDict:
    config.model.update(
        {
            'num_layers': 2,
            'embed_dim': 32,
            'mlp_dim': 64,
            'num_heads': 2,
            'num_kv_heads': 1,
            'head_dim': 16,
        }
    )
    config.data.update({'num_train': 60, 'num_test': 20})
    config.sampling.engine.update(
        {
            'num_slots': 16,
            'insert_rows': (16,),
            'compact_slots': (),
            'compact_lengths': (),
            'prompt_buckets': (280,),
            'chunk_steps': 32,
        }
    )
    config.sampling.update({'part_size': 5, 'score': {'rows': 16, 'lengths': (360,)}})
    config.train.update({'rows': 8, 'length': 360, 'log_every': 1, 'checkpoint_every': 3})
    config.base.update({'checkpoint': '', 'num_documents': 200})
    for stage in (config.base, config.actor, config.critic, config.self_talk, config.improve):
        stage.fit.num_steps = 8
    config.self_talk.update({'num_examples': 20, 'num_rounds': 2})
    config.actor.update({'num_problems': 20, 'refinements_per_problem': 1})
    # An actor that has learnt nothing is never right: the filter runs, but may ask for nothing.
    config.critique.update(
        {'num_problems': 10, 'num_attempts': 2, 'filter_samples': 2, 'filter_successes': 0}
    )
    config.evaluate.update({'num_problems': 10, 'num_attempts': 2, 'num_rounds': 2})
    config.evaluate.num_resamples = 100
    config.evaluate.beam.update({'width': 2, 'expansions': 2, 'max_steps': 4, 'num_problems': 4})
    config.improve.update({'num_problems': 6, 'num_rounds': 2, 'num_monitored': 4})
    config.improve.explore.update({'num_attempts': 2, 'num_refinements': 2})
    config.improve.candidates.update({'num_problems': 4, 'num_attempts': 2})
    config.reinforce.update(
        {'num_steps': 3, 'num_problems': 2, 'num_samples': 4, 'checkpoint_every': 2}
    )
    config.reinforce.samples_per_row = 2
    # An actor that is never right is still paid for brevity, so that updates are taken.
    config.reinforce.rewards.length = 1.0
    config.reinforce.critic_rewards.length = 1.0
    config.reinforce.overlong_tokens = 64
    return config
