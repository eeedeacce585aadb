"""Workers of scripts/bench.py for Tunix: its sampler, its trainer and its GRPO learner.

Imports nothing of ours but the worker's loop and runs in an environment of its own, from the
project's folder:
    python -m scripts.bench.tunix CONTENDER CASE CLOCK      (see scripts/bench/peers.py:serve)

Prompts are text there: here they are decimal ids with spaces between, and the tokenizer reads
those. Nothing stops a sequence, because the id that would is not in the vocabulary.
"""

import itertools
import queue
import random
import threading
from collections.abc import Callable

from scripts.bench.peers import Run, compilations, serve

PAD = 0


class Ids:
    """A tokenizer of text that spells ids. Without a beginning token; nothing is an end token."""

    def __init__(self, vocab_size: int):
        self._vocab_size = vocab_size

    def encode(self, text: str, **_) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids, **_) -> str:
        return ' '.join(map(str, ids))

    def bos_id(self) -> int:
        return PAD  # which Tunix takes for none

    def eos_id(self) -> int:
        return self._vocab_size

    def pad_id(self) -> int:
        return PAD


def make_model(case: dict, seed: int = 0):
    """Tunix's Llama of the case's shape, with random weights."""
    from flax import nnx
    from tunix.models.llama3 import model as llama

    m = case['model']
    config = llama.ModelConfig(
        vocab_size=m['vocab_size'],
        num_layers=m['num_layers'],
        embed_dim=m['embed_dim'],
        hidden_dim=m['mlp_dim'],
        num_heads=m['num_heads'],
        num_kv_heads=m['num_kv_heads'],
        head_dim=m['head_dim'],
        rope_theta=10_000,
        norm_eps=1e-6,
        weight_tying=True,
    )
    return llama.Llama3(config, rngs=nnx.Rngs(seed))


def prompts_of(case: dict, rows: int, length: int):
    """A numpy array of texts, [rows]; Tunix slices and repeats it."""
    import numpy as np

    words = range(2, case['model']['vocab_size'])
    draw = random.Random(0)
    return np.array([' '.join(map(str, draw.choices(words, k=length))) for _ in range(rows)])


def compile_comparison() -> None:
    """Compiles what a sampler's second call would: it compares two scalars to find its program."""
    import jax.numpy as jnp

    zero = jnp.array(0, jnp.int32)
    jnp.equal(zero, zero)


def make_sampler(case: dict, length: int, seed: int = 0) -> Callable:
    """sample(prompts, prompt tokens, new tokens) -> texts; caches are `length` long."""
    from tunix.generate import sampler as tunix_sampler

    compile_comparison()
    m, seeds = case['model'], iter(range(10**9))
    sampler = tunix_sampler.Sampler(
        make_model(case, seed),
        Ids(m['vocab_size']),
        tunix_sampler.CacheConfig(length, m['num_layers'], m['num_kv_heads'], m['head_dim']),
    )

    def sample(prompts, prompt: int, new: int) -> list[str]:
        return sampler(
            prompts,
            max_generation_steps=new,
            max_prompt_length=prompt,
            eos_tokens=[m['vocab_size']],
            forbidden_tokens=[PAD],
            temperature=1.0,
            top_p=1.0,
            seed=next(seeds),
        ).text

    return sample


def decode(case: dict) -> Run:
    s = case['shape']
    sample = make_sampler(case, s['prompt'] + s['new'])
    prompts = prompts_of(case, s['batch'], s['prompt'])

    def run() -> int:
        sample(prompts, s['prompt'], s['new'])
        return s['batch'] * s['new']

    return run


def prefill(case: dict) -> Run:
    s = case['shape']
    sample = make_sampler(case, s['prompt'] + 1)
    prompts = prompts_of(case, s['batch'], s['prompt'])

    def run() -> int:
        sample(prompts, s['prompt'], 1)
        return s['batch'] * s['prompt']

    return run


def ragged(case: dict) -> Run:
    """Batches of `batch` requests, each as long as its longest."""
    s = case['shape']
    sample = make_sampler(case, s['prompt'] + max(s['lengths']))
    prompts = prompts_of(case, len(s['lengths']), s['prompt'])

    def run() -> int:
        for start in range(0, len(s['lengths']), s['batch']):
            rows = slice(start, start + s['batch'])
            sample(prompts[rows], s['prompt'], max(s['lengths'][rows]))
        return sum(s['lengths'])

    return run


def episode(case: dict) -> Run:
    """Three calls, each with the whole conversation as its prompt."""
    import numpy as np

    s = case['shape']
    whole = s['prompt'] + s['attempt'] + s['critique'] + s['refinement']
    actor, critic = (make_sampler(case, whole, seed) for seed in (0, 1))
    questions = np.repeat(prompts_of(case, s['problems'], s['prompt']), s['samples'])

    def run() -> int:
        told, length = questions, s['prompt']
        for player, role in ((actor, 'attempt'), (critic, 'critique'), (actor, 'refinement')):
            texts = player(told, length, s[role])
            told = np.array([f'{before} {text}' for before, text in zip(told, texts, strict=True)])
            length += s[role]
        return len(questions) * (length - s['prompt'])

    return run


def make_optimizer():
    import optax

    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(1e-4, b2=0.999, weight_decay=0.01)
    )


def sft(case: dict) -> Run:
    import numpy as np
    from tunix.sft import peft_trainer
    from tunix.sft import utils as tunix_utils

    s = case['shape']
    rows = np.random.default_rng(0).integers(
        2, case['model']['vocab_size'], (s['batch'], s['length'])
    )
    trainer = peft_trainer.PeftTrainer(
        make_model(case), make_optimizer(), peft_trainer.TrainingConfig(eval_every_n_steps=10**9)
    )
    trainer.is_managed_externally = True  # or it would close after every call of train

    def model_input(batch) -> dict:
        return {
            'input_tokens': batch.input_tokens,
            'input_mask': batch.input_mask,
            'positions': tunix_utils.build_positions_from_mask(batch.input_mask),
            'attention_mask': tunix_utils.make_causal_attn_mask(batch.input_mask),
        }

    trainer.with_gen_model_input_fn(model_input)
    batch = peft_trainer.TrainingInput(rows.astype(np.int32), np.ones(rows.shape, bool))

    def run() -> int:
        trainer.train([batch])
        return rows.size

    return run


def grpo(case: dict) -> Run:
    """Tunix's GRPOLearner, held at the end of every step until it is asked for one.

    Held where it tells a step's metrics, in the thread that trains. Not in its data: it reads
    those in an executor, which Python waits for before it ends. Its rollouts cannot forbid a
    token; what they sample of PAD is masked, and stops nothing.
    """
    from tunix.rl.grpo import grpo_learner

    s, noise, seeds = case['shape'], iter(range(10**9)), iter(range(10**9))
    prompts = prompts_of(case, s['problems'], s['prompt'])
    rollout = _rollout_config(s, case['model']['vocab_size'])
    go, done = queue.Queue(), queue.Queue()

    def hold(metrics) -> None:
        done.put(True)
        go.get()

    learner = grpo_learner.GRPOLearner(
        _cluster(case, rollout).with_external_metrics_logger(hold),
        grpo_learner.GRPOConfig(num_generations=s['samples'], num_iterations=1, beta=0.0),
        lambda completions, **_: [float(next(noise) % 3) for _ in completions],
    )

    def train() -> None:
        go.get()
        try:
            learner.train(itertools.repeat({'prompts': prompts}))
        finally:
            done.put(False)

    threading.Thread(target=train, daemon=True).start()

    def run() -> int:
        rollout.seed = next(seeds)
        go.put(True)
        if not done.get():
            raise RuntimeError('the learner has stopped; its error stands above')
        return s['problems'] * s['samples'] * s['new']

    return run


def _rollout_config(s: dict, vocab_size: int):
    from tunix.rl.rollout import base_rollout

    return base_rollout.RolloutConfig(
        max_tokens_to_generate=s['new'],
        temperature=1.0,
        top_p=1.0,
        max_prompt_length=s['prompt'],
        kv_cache_size=s['prompt'] + s['new'],
        eos_tokens=[vocab_size],
    )


def _cluster(case: dict, rollout):
    """A trainer and a sampler that shares its weights: they do where their meshes are one.

    Batch sizes are left open, so one update takes a whole batch. The axes are automatic: Tunix's
    Llama cannot look its embeddings up along explicit ones, which are jax's default.
    """
    import jax
    from tunix.rl import rl_cluster

    mesh = jax.make_mesh((1, 1), ('fsdp', 'tp'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with mesh:
        compile_comparison()
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.ROLLOUT)
    return rl_cluster.RLCluster(
        actor=make_model(case),
        tokenizer=Ids(case['model']['vocab_size']),
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh=dict.fromkeys(roles, mesh),
            training_config=rl_cluster.RLTrainingConfig(
                actor_optimizer=make_optimizer(),
                eval_every_n_steps=10**9,
                max_steps=10**9,
            ),
            rollout_config=rollout,
        ),
    )


WORKS: dict[tuple[str, str], Callable[[dict], Run]] = {
    (work.__name__, 'tunix'): work for work in (decode, prefill, ragged, episode, sft, grpo)
}

if __name__ == '__main__':
    serve(lambda contender, case: WORKS[case['work'], contender](case), compilations())
