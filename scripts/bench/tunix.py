"""Benchmark workers that measure Tunix: its sampler, its trainer and its GRPO learner.

It runs in the project's folder, in a separate environment without this project's dependencies, so
it imports only the worker's loop from it:
    python -m scripts.bench.tunix CONTENDER CASE CLOCK      (see scripts/bench/peers.py:serve)

Tunix takes prompts as text, so a prompt is written as decimal ids separated by spaces, which
IdTokenizer reads. No sequence stops early, because the end token is outside the vocabulary.
"""

import itertools
import queue
import random
import threading
from collections.abc import Callable

from scripts.bench.peers import Run, compilations, serve

PAD = 0


class IdTokenizer:
    """Tokenizer of texts that are decimal ids; it has no token for the start of a text."""

    def __init__(self, vocab_size: int):
        self._vocab_size = vocab_size

    def encode(self, text: str, **_) -> list[int]:
        """Reads the ids of a text."""
        return [int(word) for word in text.split()]

    def decode(self, ids, **_) -> str:
        """Writes ids as text."""
        return ' '.join(map(str, ids))

    def bos_id(self) -> int:
        """The padding id, which Tunix treats as no start token."""
        return PAD

    def eos_id(self) -> int:
        """An id outside the vocabulary, so that nothing ends a sequence."""
        return self._vocab_size

    def pad_id(self) -> int:
        """Padding."""
        return PAD


def make_model(case: dict, seed: int = 0):
    """Makes Tunix's Llama of the case's shape with random weights."""
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
    """Random prompts as a NumPy array of texts [rows], because Tunix slices and repeats it."""
    import numpy as np

    words = range(2, case['model']['vocab_size'])
    draw = random.Random(0)
    return np.array([' '.join(map(str, draw.choices(words, k=length))) for _ in range(rows)])


def compile_comparison() -> None:
    """Compiles a comparison of scalars, which Tunix would otherwise compile in its second call."""
    import jax.numpy as jnp

    zero = jnp.array(0, jnp.int32)
    jnp.equal(zero, zero)


def make_sampler(case: dict, length: int, seed: int = 0) -> Callable:
    """Returns the function (prompts, prompt length, new tokens) -> texts; caches have `length`."""
    from tunix.generate import sampler as tunix_sampler

    compile_comparison()
    m, seeds = case['model'], iter(range(10**9))
    sampler = tunix_sampler.Sampler(
        make_model(case, seed),
        IdTokenizer(m['vocab_size']),
        tunix_sampler.CacheConfig(length, m['num_layers'], m['num_kv_heads'], m['head_dim']),
    )

    def sample(prompts, prompt: int, new: int) -> list[str]:
        """Samples `new` tokens after each prompt of at most `prompt` tokens."""
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
    """Returns a run that samples a batch of equal requests."""
    s = case['shape']
    sample = make_sampler(case, s['prompt'] + s['new'])
    prompts = prompts_of(case, s['batch'], s['prompt'])

    def run() -> int:
        """Samples the batch; returns the number of new tokens."""
        sample(prompts, s['prompt'], s['new'])
        return s['batch'] * s['new']

    return run


def prefill(case: dict) -> Run:
    """Returns a run that reads a batch of prompts and samples one token for each."""
    s = case['shape']
    sample = make_sampler(case, s['prompt'] + 1)
    prompts = prompts_of(case, s['batch'], s['prompt'])

    def run() -> int:
        """Reads all prompts; returns the number of their tokens."""
        sample(prompts, s['prompt'], 1)
        return s['batch'] * s['prompt']

    return run


def ragged(case: dict) -> Run:
    """Returns a run in static batches: each takes as long as its longest request."""
    s = case['shape']
    sample = make_sampler(case, s['prompt'] + max(s['lengths']))
    prompts = prompts_of(case, len(s['lengths']), s['prompt'])

    def run() -> int:
        """Samples all batches; returns the number of requested tokens."""
        for start in range(0, len(s['lengths']), s['batch']):
            rows = slice(start, start + s['batch'])
            sample(prompts[rows], s['prompt'], max(s['lengths'][rows]))
        return sum(s['lengths'])

    return run


def episode(case: dict) -> Run:
    """Returns a run of three calls, each with the whole conversation as its prompt."""
    import numpy as np

    s = case['shape']
    whole = s['prompt'] + s['attempt'] + s['critique'] + s['refinement']
    actor, critic = (make_sampler(case, whole, seed) for seed in (0, 1))
    questions = np.repeat(prompts_of(case, s['problems'], s['prompt']), s['samples'])

    def run() -> int:
        """Samples all three turns; returns the number of new tokens."""
        texts, length = questions, s['prompt']
        for player, role in ((actor, 'attempt'), (critic, 'critique'), (actor, 'refinement')):
            turns = player(texts, length, s[role])
            texts = np.array([f'{text} {turn}' for text, turn in zip(texts, turns, strict=True)])
            length += s[role]
        return len(questions) * (length - s['prompt'])

    return run


def make_optimizer():
    """Makes clipping and AdamW, with the values of the other contenders."""
    import optax

    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(1e-4, b2=0.999, weight_decay=0.01)
    )


def sft(case: dict) -> Run:
    """Returns a run of one supervised training step."""
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
    trainer.is_managed_externally = True  # otherwise it closes after every call of train

    def model_input(batch) -> dict:
        """Arguments of the loss function."""
        return {
            'input_tokens': batch.input_tokens,
            'input_mask': batch.input_mask,
            'positions': tunix_utils.build_positions_from_mask(batch.input_mask),
            'attention_mask': tunix_utils.make_causal_attn_mask(batch.input_mask),
        }

    trainer.with_gen_model_input_fn(model_input)
    batch = peft_trainer.TrainingInput(rows.astype(np.int32), np.ones(rows.shape, bool))

    def run() -> int:
        """Trains on the batch; returns the number of its tokens."""
        trainer.train([batch])
        return rows.size

    return run


def grpo(case: dict) -> Run:
    """Returns a run of one step of Tunix's GRPOLearner.

    The learner has no public function for one step, so it trains in a thread that waits at the end
    of every step, when it logs the step's metrics. (It cannot wait in the data: an executor reads
    them, and Python waits for executors before it exits.) Rollouts cannot ban a token; a sampled
    PAD is masked and ends nothing.
    """
    from tunix.rl.grpo import grpo_learner

    s, noise, seeds = case['shape'], iter(range(10**9)), iter(range(10**9))
    prompts = prompts_of(case, s['problems'], s['prompt'])
    rollout = _rollout_config(s, case['model']['vocab_size'])
    go, done = queue.Queue(), queue.Queue()

    def wait_for_turn(metrics) -> None:
        """Reports the end of a step and waits until the next step may start."""
        done.put(True)
        go.get()

    learner = grpo_learner.GRPOLearner(
        _cluster(case, rollout).with_external_metrics_logger(wait_for_turn),
        grpo_learner.GRPOConfig(num_generations=s['samples'], num_iterations=1, beta=0.0),
        lambda completions, **_: [float(next(noise) % 3) for _ in completions],
    )

    def train() -> None:
        """Trains; reports the end of the learner, also after an error."""
        go.get()
        try:
            learner.train(itertools.repeat({'prompts': prompts}))
        finally:
            done.put(False)

    threading.Thread(target=train, daemon=True).start()

    def run() -> int:
        """Runs one step; returns the number of new tokens."""
        rollout.seed = next(seeds)
        go.put(True)
        if not done.get():
            raise RuntimeError('the learner has stopped; its error is above')
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
    """Makes a trainer and a sampler on one mesh, so that they share the weights.

    Without batch sizes, one update takes the whole batch. The mesh axes are automatic because the
    embedding lookup of Tunix's Llama fails with explicit axes, which are JAX's default.
    """
    import jax
    from tunix.rl import rl_cluster

    mesh = jax.make_mesh((1, 1), ('fsdp', 'tp'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with mesh:
        compile_comparison()
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.ROLLOUT)
    return rl_cluster.RLCluster(
        actor=make_model(case),
        tokenizer=IdTokenizer(case['model']['vocab_size']),
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
