"""Every shipped config and variant: complete, consistent, and built without any array."""

import ast
import dataclasses
import functools
import importlib.util
import pathlib
import re
import typing

import jax
import pytest

from elenchus.configs.studies import critics, findings, reinforcement
from elenchus.data.lab import task
from elenchus.data.problems import published
from elenchus.data.records import Batch
from elenchus.data.text import chat
from elenchus.data.text import tokenizer as tokenizers
from elenchus.model import config as model_config
from elenchus.model import memory, sharding
from elenchus.sampling.engine import decode, sampling_methods
from elenchus.sampling.exploration import explorers
from elenchus.scripts import run
from elenchus.train import loop, objective, optimizer, state, step
from elenchus.train.checkpoints import saved_models
from elenchus.train.config import build, checks, run_settings
from elenchus.train.planning import dry_run, machines, memory_plan
from elenchus.train.report import study_table
from elenchus.train.run import inputs, study_runner

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ('model', 'data', 'sampling', 'train', 'scripts')
MESHES = {
    'one device': (1, 1, 1),
    'data': (8, 1, 1),
    'fsdp': (1, 8, 1),
    'data and fsdp': (2, 4, 1),
}


def get_config(name):
    """The run that a config describes; of a study, the run that its arms change."""
    module, _, variant = name.partition(':')
    config = importlib.import_module(f'configs.{module}').get_config(variant)
    return config.run if 'arms' in config else config


def variants():
    """module:variant of every file in configs/, as the files' own errors list them."""
    for path in sorted((ROOT / 'configs').glob('[!_]*.py')):
        with pytest.raises(ValueError, match='no such variant; there are') as error:
            get_config(f'{path.stem}:')
        for variant in ast.literal_eval(re.search(r'\[.*\]', str(error.value))[0]):
            yield f'{path.stem}:{variant}'


ALL = list(variants())
BIG = 'gsm8k:default'
each = pytest.mark.parametrize('name', ALL)


@functools.cache
def built(name):
    return build.build(run_settings.RunSettings, get_config(name))


RELEASED = {
    'llama3_8b_mathcritique:default': 8_030_261_248,
    'qwen2p5_math_1p5b_gsm8k:default': 1_543_714_304,
    'qwen2p5_math_1p5b_gsm8k:lora': 1_543_714_304,
    'qwen3_0p6b_gsm8k:default': 596_049_920,
    'gemma3_1b_lora:default': 999_885_952,
    'gemma3_1b_lora:int8': 999_885_952,
    'gemma3_1b_lora:nf4': 999_885_952,
}
"""Published numbers of parameters."""
own = pytest.mark.parametrize('name', [name for name in ALL if name not in RELEASED])


def mesh_of(shape):
    """A mesh on the first devices; the shipped meshes take all there are."""
    size = shape[0] * shape[1] * shape[2]
    axis_types = (jax.sharding.AxisType.Auto,) * 3
    return jax.make_mesh(shape, sharding.AXES, axis_types=axis_types, devices=jax.devices()[:size])


def abstract_batch(rows, length, mesh):
    place = sharding.batch_sharding(mesh)
    floats = ('loss_mask', 'weights', 'old_logprobs', 'ref_logprobs')
    return Batch(
        **{
            field: jax.ShapeDtypeStruct(
                (rows, length), 'float32' if field in floats else 'int32', sharding=place
            )
            for field in Batch._fields
        }
    )


def test_the_shipped_configs_are_found():
    expected = {'lab:default', 'lab:smoke', 'lab:base', BIG, 'gsm8k:tiny', 'gsm8k:smoke'}
    assert expected <= set(ALL)


@each
def test_a_config_says_everything_and_nothing_else(name):
    config = get_config(name)
    assert dataclasses.asdict(built(name)).keys() == set(config)
    again = build.from_json(build.to_json(config))
    assert build.build(run_settings.RunSettings, again) == built(name)


@each
def test_its_shapes_hold_the_longest_turns_after_a_short_question(name):
    checks.check_lengths(built(name), 8)


@pytest.mark.parametrize('variant', ['default', 'smoke'])
@pytest.mark.parametrize('described', [critics, findings, reinforcement])
def test_every_arm_of_a_study_is_a_run(described, variant):
    config = described.get_config(variant)
    build.build(study_table.Comparison, config.comparison)
    for seed in config.seeds:
        for changes in study_runner.arms_of(config).values():
            made = build.build(
                run_settings.RunSettings, study_runner.arm_config(config, seed, changes)
            )
            assert made.seed == seed
            assert made.stages[: len(config.shared)] == config.shared != made.stages
            check_order(made.stages)
            checks.check_counts(made)
    with pytest.raises(ValueError, match='num_problem'):
        study_runner.arm_config(config, 0, {'critique': {'num_problem': 1}})


@each
def test_its_stages_exist_and_come_after_what_they_read(name):
    check_order(built(name).stages)


def check_order(stages):
    assert len(set(stages)) == len(stages) > 0
    assert set(stages) <= set(run.STAGES)
    order = list(run.STAGES)
    needs = {
        'actor': {'base'},
        'critique': {'actor'},
        'critic': {'base', 'critique'},
        'evaluate': {'actor', 'critic'},
        'self_talk': {'base', 'actor', 'critique'},
        **dict.fromkeys(explorers.EXPLORERS, {'base', 'actor', 'critic'}),
        'reinforce': {'actor', 'critic'},
        'reinforce_critic': {'actor', 'critic'},
        'reinforce_both': {'actor', 'critic'},
    }
    assert set(needs) <= set(order)
    for i, stage in enumerate(stages):
        assert needs.get(stage, set()) <= set(stages[:i]), stage


@each
@pytest.mark.parametrize('mesh', MESHES)
def test_its_model_has_shardings(name, mesh):
    s, mesh = built(name), mesh_of(MESHES[mesh])
    model = saved_models.abstract_model(s.model, mesh)
    sizes = [leaf.size for leaf in jax.tree.leaves(model)]
    assert sum(sizes) == model_config.num_parameters(s.model)
    assert all(leaf.sharding.mesh == mesh for leaf in jax.tree.leaves(model))


@pytest.mark.parametrize('shape', [(1, 8, 1), (1, 4, 2), (1, 2, 4)])
def test_the_big_model_of_a_hundred_million_parameters_is_held_in_shares(shape):
    s, mesh = built(BIG), mesh_of(shape)
    assert 9e7 < model_config.num_parameters(s.model) < 1.2e8
    leaves = jax.tree.leaves(saved_models.abstract_model(s.model, mesh))
    held = sum(
        leaf.dtype.itemsize * functools.reduce(int.__mul__, leaf.sharding.shard_shape(leaf.shape))
        for leaf in leaves
    )
    assert held < 1.02 * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / 8


def trace_step(s, fit_optimizer, objective, transform, *, num_steps, rows, length):
    """Shapes of one whole train step on one device."""
    mesh = mesh_of((1, 1, 1))
    made = optimizer.make_optimizer(fit_optimizer, num_steps=num_steps)
    with jax.set_mesh(mesh):
        model = saved_models.abstract_model(s.model, mesh)
        before = jax.eval_shape(lambda m: state.init_state(m, made), model)
        train_step = step.make_train_step(
            objective=objective,
            optimizer=made,
            transform=transform,
            num_microbatches=s.train.num_microbatches,
            skip_nonfinite=s.train.nonfinite == 'skip',
        )
        batch = abstract_batch(rows, length, mesh)
        return before, *jax.eval_shape(train_step, before, batch)


def shapes(tree):
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


@own
def test_its_supervised_step_traces(name):
    s = built(name)
    loop.check_rows(s.train, mesh_of((1, 1, 1)))
    before, after, metrics = trace_step(
        s,
        s.base.fit.optimizer,
        objective.SFT,
        step.IDENTITY,
        num_steps=s.base.fit.num_steps,
        rows=s.train.rows,
        length=s.train.length,
    )
    assert shapes(after) == shapes(before)
    assert metrics['loss/total'].shape == ()


@own
@pytest.mark.parametrize('player', ['actor', 'critic'])
def test_its_reinforcement_step_traces(name, player):
    s = built(name)
    r = s.reinforce
    before, after, _ = trace_step(
        s,
        r.optimizer,
        r.objective,
        method_of(s).transform,
        num_steps=r.num_steps,
        rows=r.rows // r.num_minibatches,
        length=r.row_length(player),
    )
    assert shapes(after) == shapes(before)


def test_the_released_configs_are_known():
    assert set(RELEASED) == {name for name in ALL if built(name).tokenizer.kind == 'file'}


@pytest.mark.parametrize('name', RELEASED)
def test_a_released_model_has_its_published_size(name):
    s = built(name)
    assert model_config.num_parameters(s.model) == RELEASED[name]
    run = dry_run.plan_of(s)
    assert {t.name for t in run.trainings} == set(s.stages) - {'base', 'critique', 'evaluate'}
    assert all(bool(t.lora.rank) == ('lora' in name) for t in run.trainings)
    assert memory_plan.phases(run, machines.topology('v5p-16')).keys() > {'actor', 'sampling'}


@pytest.mark.parametrize(
    'name',
    [
        'llama3_8b_mathcritique:default',
        'qwen2p5_math_1p5b_gsm8k:default',
        'qwen3_0p6b_gsm8k:default',
        'gemma3_1b_lora:nf4',
    ],
)
def test_all_programs_of_a_released_model_trace(name):
    """Every training step and a chunk of decoding, on a mesh of eight chips."""
    run = dataclasses.replace(dry_run.plan_of(built(name)), mesh=(1, 8, 1))
    with jax.sharding.use_abstract_mesh(memory.abstract_mesh(run.mesh)):
        dry_run.trace_programs(built(name), run)


def method_of(s):
    sampling = s.sampling
    return sampling_methods.TemperatureSampling(
        sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, banned=(0,)
    )


@own
def test_its_sampling_traces(name):
    s, mesh = built(name), mesh_of((1, 1, 1))
    engine = s.sampling.engine
    with jax.set_mesh(mesh):
        model = saved_models.abstract_model(s.model, mesh)
        slots = jax.eval_shape(
            lambda: decode.init_state(s.model, batch=engine.num_slots, length=engine.max_length)
        )
        after, flags = jax.eval_shape(
            lambda model, slots: decode.decode_chunk(
                model,
                slots,
                None,
                method=method_of(s),
                seed=0,
                num_steps=engine.chunk_steps,
                stop_ids=(1,),
                length=engine.max_length,
            ),
            model,
            slots,
        )
    assert shapes(after) == shapes(slots)
    assert flags.shape == (2, engine.num_slots)


@each
def test_its_stages_ask_for_no_more_problems_than_there_are(name):
    checks.check_counts(built(name))


def longest_question(tokenizer, asked):
    told = chat.Chat(tokenizer)
    turns = [told.question_turns(problem.question)[0] for problem in asked]
    return max(len(turn.header) + len(turn.tokens) for turn in turns)


@pytest.mark.parametrize('name', [name for name in ALL if built(name).data.source == 'lab'])
def test_its_shapes_hold_the_longest_generated_conversation(name):
    asked = [
        task.generate_problem(seed=0, split='train', index=index) for index in range(4, 2000, 5)
    ]
    tokenizer = tokenizers.lab_tokenizer()
    checks.check_lengths(built(name), longest_question(tokenizer, asked))
    assert tokenizer.vocab_size <= built(name).model.vocab_size
    told = chat.Chat(tokenizer)
    limits = built(name).sampling
    solutions = max(len(told.text_turn('attempt', p.solution).tokens) for p in asked)
    critiques = max(
        len(told.text_turn('critique', task.judge(p.question, p.solution).critique).tokens)
        for p in asked
    )
    assert solutions <= min(limits.attempt_tokens, limits.refinement_tokens)
    assert critiques <= limits.critique_tokens


@pytest.mark.parametrize('name', [name for name in ALL if built(name).tokenizer.kind == 'train'])
def test_its_shapes_hold_the_longest_real_question(name, shared_data):
    s = built(name)
    asked = []
    for split, count in (('train', s.data.num_train), ('test', s.data.num_test)):
        with (shared_data / 'gsm8k' / f'{split}.jsonl').open(encoding='utf-8') as lines:
            read = [
                published.parse_problem(published.Gsm8k, line, id=f'{split}/{i}')
                for i, line in zip(range(count), lines, strict=False)
            ]
        assert len(read) == count
        asked.append(read)
    texts = [text for p in asked[0] for text in inputs.tokenizer_texts(p)]
    tokenizer = tokenizers.SentencePieceTokenizer.from_bytes(
        tokenizers.train_tokenizer(
            texts, vocab_size=s.tokenizer.vocab_size, model_type=tokenizers.MODEL_TYPES[0]
        )
    )
    assert tokenizer.vocab_size <= s.model.vocab_size
    checks.check_lengths(s, longest_question(tokenizer, asked[0] + asked[1]))
    assert tokenizer.encode('Correct')[0] != tokenizer.encode('Wrong')[0]


def test_every_field_is_read_somewhere():
    sources = [path.read_text() for name in PACKAGES for path in (ROOT / name).rglob('*.py')]
    text = '\n'.join(sources)
    unread = [
        path for path in fields_of(run_settings.RunSettings)
        if not re.search(rf'\.{path.rpartition(".")[2]}\b', text)
        and not re.search(rf"'{path.rpartition('.')[2]}'", text)
    ]  # fmt: skip
    assert not unread


def fields_of(cls, prefix=''):
    """Dotted paths of all leaf fields of nested dataclasses."""
    for name, hint in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from fields_of(hint, f'{prefix}{name}.')
        else:
            yield prefix + name


def test_the_readmes_config_of_ones_own_problems_holds_its_texts(tmp_path):
    told = (ROOT / 'README.md').read_text(encoding='utf-8')
    (block,) = re.findall(r'```python\n(from configs import lab\n.*?)```', told, re.DOTALL)
    path = tmp_path / 'mine.py'
    path.write_text(block)
    spec = importlib.util.spec_from_file_location('mine', path)
    mine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mine)
    made = build.build(run_settings.RunSettings, mine.get_config())
    checks.check_counts(made)
    checks.check_lengths(made, longest_question=240)  # GSM8K's longest in 2048 pieces
