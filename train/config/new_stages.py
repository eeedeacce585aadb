"""Fields of stages that earlier versions of the code did not have, with a value for each.

No earlier run has these stages, nor searches trees, so their values bind nothing; the fields must
be known.
"""

_OPTIMIZER = {
    'name': 'muon',
    'learning_rate': 0.0003,
    'adam_learning_rate': 0.0003 / 7,
    'schedule': 'constant',
    'warmup_fraction': 0.05,
    'weight_decay': 0.0,
    'beta1': 0.9,
    'beta2': 0.95,
    'clip_norm': 1.0,
}
_PREFER = {
    'start': '',
    'critic_start': '',
    'num_problems': 6,
    'num_rounds': 2,
    'restart': 'last',
    'explorer': 'critique_in_the_loop',
    'num_attempts': 2,
    'num_critiques': 2,
    'num_refinements': 1,
    'refine': 'wrong',
    'pairs': 'right_wrong',
    'keep': 4,
    'prompt': 'question',
    'mask_common': False,
    'length': 0,
    'loss.kind': 'dpo',
    **dict.fromkeys(f'loss.{n}' for n in ('beta', 'gamma', 'nll_coef', 'desirable', 'undesirable')),
    'fit.num_steps': 4,
    'fit.reweigh': 'none',
    'fit.read': 'same',
    **{f'fit.optimizer.{name}': value for name, value in _OPTIMIZER.items()},
    'lora.rank': 0,
    'lora.alpha': 32.0,
    'lora.targets': ('query', 'key', 'value', 'out', 'gate', 'up', 'down'),
}
_TREE = {
    'grow': 'line',
    'select': 'uct',
    'exploration': 0.3,
    'values': (('min', 1.0),),
    'backup': 'mean',
    'num_rollouts': 2,
    'expansions': 2,
    'children': 2,
    'max_depth': 12,
    'num_nodes': 6,
    'num_tokens': 0,
}
_ADAPT = {
    'make': 'none',
    'when': 'always',
    'fit.num_steps': 8,
    'fit.reweigh': 'none',
    'fit.read': 'same',
    **{f'fit.optimizer.{name}': value for name, value in _OPTIMIZER.items()},
    'fit.optimizer.name': 'adamw',
    'lora.rank': 8,
    'lora.alpha': 16.0,
    'lora.targets': ('query', 'key', 'value', 'out', 'gate', 'up', 'down'),
}
NEW_STAGES = {
    **{f'prefer.{name}': value for name, value in _PREFER.items()},
    **{f'sampling.tree.{name}': value for name, value in _TREE.items()},
    'average.stages': ('actor',),
    'average.weights': (),
}
"""Field -> a value of it."""

NO_ADAPTERS = {f'evaluate.adapt.{name}': value for name, value in _ADAPT.items()}
"""Fields of a run from before there was test-time training."""

NO_TOOLS = {
    'use': (),
    'form': 'fenced',
    'roles': ('attempt', 'refinement'),
    'max_calls': 4,
    'timeout_s': 2.0,
    'memory_mib': 512,
    'output_chars': 1000,
    'modules': ('sympy',),
    'isolation': 'namespaces',
    'workers': 1,
}
"""Fields of sampling.tools of a run from before there were tools."""
