"""GSM8K, the stages of the lab on real text; critiques compare attempts with the reference by rule.

configs/gsm8k.py         a model of 107 million parameters from scratch, on accelerators
configs/gsm8k.py:tiny    a small model for a few hundred steps on two CPU cores: the loss falls and
                         samples have the right form; do not expect right answers
configs/gsm8k.py:smoke   every stage with tiny numbers

The data are downloaded; --config.data.path=DIR reads DIR/train.jsonl and DIR/test.jsonl instead,
and --config.data.test_source=svamp evaluates on other problems.
"""

from ml_collections import ConfigDict

from elenchus.configs import defaults, derive


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns a variant of the run."""
    variants = {'default': lambda config: config, 'tiny': tiny, 'smoke': smoke}
    derive.check_variant('gsm8k', arg, variants)
    return variants[arg](default())


def default() -> ConfigDict:
    """Returns the run of 107 million parameters."""
    config = defaults.get_config()
    config.mesh = (1, -1, 1)
    config.model.update(dtype='bfloat16', remat='dots', scan_layers=True, logits_chunk=4096)
    # The longest question has 240 tokens; 99 of 100 solutions have at most 224, critiques 367.
    derive.set_lengths(config, question=240, attempt=224, critique=320, refinement=224)
    config.sampling.engine.update(
        num_slots=256, chunk_steps=32, decode_batch_sizes=(64,), decode_cache_lengths=(480,)
    )
    config.sampling.score.lengths = (480, 800)
    config.sampling.part_size = 250
    config.train.rows = 64
    config.self_talk.tokens = 640
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    """Returns a small model that trains for minutes on two CPU cores."""
    config.model.update(
        vocab_size=2048,
        num_layers=3,
        embed_dim=128,
        mlp_dim=352,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        dtype='float32',
        remat='none',
        scan_layers=False,
    )
    config.tokenizer.vocab_size = 2048
    config.data.update(num_train=2000, num_test=60)
    derive.set_lengths(config, question=280, attempt=192, critique=256, refinement=192)
    config.sampling.engine.update(
        num_slots=64,
        prefill_batch_sizes=(32,),
        decode_batch_sizes=(16,),
        decode_cache_lengths=(480,),
    )
    config.sampling.score.rows = 16
    config.sampling.part_size = 20
    config.train.rows = 6
    config.base.update(num_documents=2000, fit=defaults.fit(300, 0.02))
    config.actor.num_problems = 1000
    for stage in (config.actor, config.critic, config.self_talk, config.improve):
        stage.fit = defaults.fit(60, 0.005)
    config.critique.update(num_problems=60, num_attempts=2)
    config.evaluate.update(num_problems=60, num_attempts=2)
    config.self_talk.update(num_examples=200, tokens=448)
    config.improve.update(num_problems=40, num_rounds=1, num_monitored=20)
    config.improve.explore.update(num_attempts=2, num_refinements=2)
    config.prefer.update(num_problems=40, num_attempts=2)
    config.improve.candidates.update(num_problems=10, num_attempts=2)
    config.reinforce.update(
        num_steps=4, num_problems=4, num_samples=4, samples_per_row=2, checkpoint_every=2
    )
    return config


def smoke(config: ConfigDict) -> ConfigDict:
    """Runs every stage with tiny numbers."""
    config = tiny(config)
    config.model.update(
        vocab_size=1024,
        num_layers=2,
        embed_dim=32,
        mlp_dim=64,
        num_heads=2,
        num_kv_heads=1,
        head_dim=16,
    )
    config.tokenizer.vocab_size = 1024
    config.data.update(num_train=60, num_test=10)
    derive.set_lengths(config, question=320, attempt=24, critique=96, refinement=24)
    config.sampling.engine.update(
        num_slots=16, prompt_buckets=(480,), prefill_batch_sizes=(16,), decode_batch_sizes=()
    )
    config.sampling.part_size = 5
    config.train.update(rows=8, length=768, log_every=1, checkpoint_every=3)
    config.model.max_length = 768
    config.base.num_documents = 60
    config.self_talk.update(num_examples=20, num_rounds=2, tokens=120)
    for stage in (config.base, config.actor, config.critic, config.self_talk, config.improve):
        stage.fit.num_steps = 8
    config.actor.num_problems = 20
    config.critique.update(num_problems=10, filter_samples=2, filter_successes=0)
    config.evaluate.update(num_problems=10, num_rounds=2, num_resamples=100)
    config.evaluate.beam.update(width=2, expansions=2, max_steps=4, num_problems=4)
    config.sampling.tree.update(num_nodes=6, children=2)
    config.improve.update(num_problems=10, num_monitored=4)
    config.prefer.num_problems = 10
    config.reinforce.update(num_steps=3, num_problems=2, samples_per_row=1)
    return config
