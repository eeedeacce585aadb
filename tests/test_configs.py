"""Every shipped config and variant: complete, consistent, long enough for its texts."""

import dataclasses
import functools
import importlib.util
import re
import typing

import pytest

from elenchus.configs.studies import critics, findings, reinforcement, tail
from elenchus.data.lab import forms, task
from elenchus.data.text import chat
from elenchus.data.text import tokenizer as tokenizers
from elenchus.sampling.exploration import explorers
from elenchus.train.config import build, checks, run_settings
from elenchus.train.report import study_table
from elenchus.train.run import inputs, study_runner
from elenchus.train.stages import STAGES
from tests.support import problem_lines, shipped_configs
from tests.support.shipped_configs import ALL, RELEASED, ROOT, Naming, settings_of

PACKAGES = ('model', 'data', 'sampling', 'train', 'scripts')


def test_the_shipped_configs_are_listed():
    expected = {'lab:default', 'lab:smoke', 'lab:base', 'gsm8k:default', 'gsm8k:tiny'}
    assert expected | {'gsm8k:smoke', 'defaults:default', 'studies.critics:smoke'} <= set(ALL)


def test_a_config_has_every_field_and_no_other():
    for name in ALL:
        with Naming(name):
            config = shipped_configs.get_config(name)
            assert dataclasses.asdict(settings_of(name)).keys() == set(config)
            again = build.from_json(build.to_json(config))
            assert build.build(run_settings.RunSettings, again) == settings_of(name)


def test_its_shapes_have_room_for_the_longest_turns_after_a_short_question():
    for name in ALL:
        with Naming(name):
            checks.check_lengths(settings_of(name), 8)


@pytest.mark.parametrize('variant', [pytest.param('default', marks=pytest.mark.slow), 'smoke'])
@pytest.mark.parametrize('module', [critics, findings, reinforcement, tail])
def test_every_arm_of_a_study_is_a_run(module, variant):
    config = module.get_config(variant)
    build.build(study_table.Comparison, config.comparison)
    for seed in config.seeds:
        for changes in study_runner.arms_of(config).values():
            settings = build.build(
                run_settings.RunSettings, study_runner.arm_config(config, seed, changes)
            )
            assert settings.seed == seed
            assert settings.stages[: len(config.shared)] == config.shared != settings.stages
            check_order(settings.stages)
            checks.check_counts(settings)
    with pytest.raises(ValueError, match='num_problem'):
        study_runner.arm_config(config, 0, {'critique': {'num_problem': 1}})


def test_its_stages_exist_and_come_after_what_they_read():
    for name in ALL:
        with Naming(name):
            check_order(settings_of(name).stages)


def check_order(stages):
    assert len(set(stages)) == len(stages) > 0
    assert set(stages) <= set(STAGES)
    order = list(STAGES)
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


def test_its_stages_need_no_more_problems_than_there_are():
    for name in ALL:
        with Naming(name):
            checks.check_counts(settings_of(name))


def test_the_released_configs_are_known():
    assert set(RELEASED) == {name for name in ALL if settings_of(name).tokenizer.kind == 'file'}


def longest_question(tokenizer, problems):
    template = chat.Chat(tokenizer)
    turns = [template.question_turns(problem.question)[0] for problem in problems]
    return max(len(turn.header) + len(turn.tokens) for turn in turns)


def test_its_shapes_have_room_for_the_longest_generated_conversation():
    problems = [
        forms.generate_problem(seed=0, split='train', index=index) for index in range(4, 2000, 5)
    ]
    tokenizer = tokenizers.lab_tokenizer()
    template, question = chat.Chat(tokenizer), longest_question(tokenizer, problems)
    solutions = max(len(template.text_turn('attempt', p.solution).tokens) for p in problems)
    critiques = max(
        len(template.text_turn('critique', task.judge(p.question, p.solution).critique).tokens)
        for p in problems
    )
    names = [name for name in ALL if settings_of(name).data.source == 'lab']
    assert len(names) >= 10
    for name in names:
        with Naming(name):
            checks.check_lengths(settings_of(name), question)
            assert tokenizer.vocab_size <= settings_of(name).model.vocab_size
            limits = settings_of(name).sampling
            assert solutions <= min(limits.attempt_tokens, limits.refinement_tokens)
            assert critiques <= limits.critique_tokens


@functools.cache
def read_problems(folder, split, count):
    with (folder / 'gsm8k' / f'{split}.jsonl').open(encoding='utf-8') as lines:
        problems = [
            problem_lines.parse('gsm8k', line, id=f'{split}/{i}')
            for i, line in zip(range(count), lines, strict=False)
        ]
    assert len(problems) == count
    return problems


@functools.cache
def train_tokenizer(folder, count, vocab_size):
    texts = [t for p in read_problems(folder, 'train', count) for t in inputs.tokenizer_texts(p)]
    model_type = tokenizers.MODEL_TYPES[0]
    return tokenizers.SentencePieceTokenizer.from_bytes(
        tokenizers.train_tokenizer(texts, vocab_size=vocab_size, model_type=model_type)
    )


@pytest.mark.slow
def test_its_shapes_have_room_for_the_longest_real_question(shared_data):
    names = [name for name in ALL if settings_of(name).tokenizer.kind == 'train']
    assert len(names) >= 4
    for name in names:
        with Naming(name):
            s = settings_of(name)
            train = read_problems(shared_data, 'train', s.data.num_train)
            test = read_problems(shared_data, 'test', s.data.num_test)
            tokenizer = train_tokenizer(shared_data, s.data.num_train, s.tokenizer.vocab_size)
            assert tokenizer.vocab_size <= s.model.vocab_size
            checks.check_lengths(s, longest_question(tokenizer, train + test))
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


def test_the_readmes_config_of_ones_own_problems_fits_its_texts(tmp_path):
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    blocks = re.findall(r'```python\n(.*?)```', readme, re.DOTALL)
    (block,) = [block for block in blocks if 'def get_config' in block]
    path = tmp_path / 'mine.py'
    path.write_text(block)
    spec = importlib.util.spec_from_file_location('mine', path)
    mine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mine)
    settings = build.build(run_settings.RunSettings, mine.get_config())
    checks.check_counts(settings)
    checks.check_lengths(settings, longest_question=240)  # GSM8K's longest in 2048 pieces
