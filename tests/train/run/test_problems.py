"""What a run checks of its problems when it opens, and what it counts."""

import json
import random

import pytest

from elenchus.configs import gsm8k
from elenchus.data.critiques import mistakes
from elenchus.data.grading import verify
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.run import lengths, paths, problems, runner, session
from elenchus.train.stages import actor

REINFORCED = ('base', 'actor', 'critique', 'critic', 'reinforce')


def rows_of(count, **changes):
    """Rows of word problems; `changes` of a field are by the row's index."""
    rows = [
        {
            'question': f'Ann has {i} pens and buys {i + 3}. How many?',
            'answer': str(2 * i + 3),
            'solution': f'{i} + {i + 3} = {2 * i + 3}\n#### {2 * i + 3}',
        }
        for i in range(count)
    ]
    for field, values in changes.items():
        for index, value in values.items():
            rows[index][field] = value
            if value is None:
                del rows[index][field]
    return rows


def config_of(folder, train, test=None, *, stages=('base', 'actor'), **data):
    for name, rows in (('train', train), ('test', test or rows_of(10))):
        (folder / f'{name}.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    config = gsm8k.get_config('smoke')
    config.mesh = (8, 1, 1)
    config.stages = stages
    config.data.update({'source': 'jsonl', 'path': str(folder), **data})
    config.data.data_dir = str(folder / 'data')
    return config


def opened(config, folder):
    with verify.Verifier(num_workers=1, timeout_s=1.0) as verifier:
        return session.open_run(config, folder / 'run', verifier=verifier)


def refused(config, folder):
    """Returns the one line with which a run is refused before it writes anything."""
    with pytest.raises(ValueError) as error:
        opened(config, folder)
    assert not (folder / 'run').exists() and '\n' not in str(error.value)
    return str(error.value)


# Solutions


def counts_of(config):
    """Checks and counts training problems; the stages need not be a whole run."""
    settings = build.build(RunSettings, config)
    rows = problems.load_rows(settings, 'train')
    problems.check_solutions(settings, rows)
    return problems.count(rows)


def set_references(config):
    config.improve.update(responses='references', num_references=5)


def set_hints(config):
    config.reinforce.turns.hint_share = 0.5


@pytest.mark.parametrize(
    ('stages', 'change', 'reader'),
    [
        (('base',), None, "stage 'base' trains on it"),
        (('actor',), None, "stage 'actor' trains on it"),
        (('critique', 'rationale_driven'), None, "stage 'rationale_driven' shows it"),
        (('critique', 'state_reset'), None, "stage 'state_reset' shows it"),
        (('vanilla',), set_references, "improve.responses='references' trains on 5 of them"),
        (('reinforce',), set_hints, 'reinforce.turns.hint_share gives a part of it'),
        (('critique',), None, "critique.annotator='oracle' needs it"),
    ],
)
@pytest.mark.parametrize('lacking', [None, '', ' \n'])
def test_a_stage_that_needs_solutions_is_refused_without(tmp_path, stages, change, reader, lacking):
    train = rows_of(60, solution=dict.fromkeys(range(60), lacking))
    config = config_of(tmp_path, train, stages=stages)
    if change:
        change(config)
    with pytest.raises(ValueError) as error:
        counts_of(config)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/train.jsonl:1: missing field 'solution', but {reader}")
    assert 'rows lack it' in message


def test_the_first_row_without_a_solution_is_named_and_all_are_counted(tmp_path):
    train = rows_of(60, solution={7: None, 9: ''}, id={7: 'my-id'})
    message = refused(config_of(tmp_path, train), tmp_path)
    assert message.startswith(f'{tmp_path}/train.jsonl:8: ')
    assert '(2 of 60 rows lack it)' in message


@pytest.mark.parametrize(
    'stages', [('evaluate',), ('reinforce',), ('critic',), ('critique', 'critic', 'answer_driven')]
)
def test_stages_that_need_no_solutions_open_without(tmp_path, stages):
    config = config_of(tmp_path, rows_of(60, solution=dict.fromkeys(range(60))), stages=stages)
    config.critique.annotator = 'monte_carlo'
    assert counts_of(config).without_solution == 60


def test_a_base_that_is_not_trained_needs_no_solutions(tmp_path):
    config = config_of(tmp_path, rows_of(60, solution={0: None}), stages=('base',))
    config.base.fit.num_steps = 0
    assert opened(config, tmp_path).inputs.counts['train'].without_solution == 1


def test_rows_that_no_stage_reads_may_lack_solutions(tmp_path):
    config = config_of(tmp_path, rows_of(60, solution={30: None}), stages=('base', 'actor'))
    config.base.fit.num_steps = 0
    opened(config, tmp_path)  # the actor reads the first 20


def test_an_oracle_leaves_out_the_problems_without_a_solution(tmp_path):
    config = config_of(
        tmp_path, rows_of(60, solution=dict.fromkeys(range(9))), stages=('critique',)
    )
    assert counts_of(config).without_solution == 9


# References


@pytest.mark.parametrize('answer', ['nan', '', ' ', '####', r'\frac{1}{2', None, ['7'], False])
@pytest.mark.parametrize('split', ['train', 'test'])
def test_references_that_cannot_be_met_are_refused_by_their_line(tmp_path, answer, split):
    rows = {'train': rows_of(60), 'test': rows_of(10)}
    rows[split][3]['answer'] = answer
    message = refused(config_of(tmp_path, rows['train'], rows['test']), tmp_path)
    assert message.startswith(f'config.data: {tmp_path}/{split}.jsonl:4: answer=')


def test_solutions_as_answers_are_read_and_said(tmp_path, capsys):
    train = [{'question': r['question'], 'answer': r['solution']} for r in rows_of(60)]
    run = opened(config_of(tmp_path, train), tmp_path)
    assert [p.answer for p in run.inputs.train_problems[:3]] == ['3', '5', '7']
    assert all(p.solution for p in run.inputs.train_problems)
    assert run.inputs.counts['train'].marked_answers == 60
    assert 'data: 60 train answers are read from whole texts' in capsys.readouterr().out


def test_every_reference_of_a_run_is_met_by_itself(tmp_path):
    answers = {0: '#### 7', 1: 'The answer is 7.', 2: r'$\boxed{7}$', 3: 7, 4: 7.0, 5: 'Answer: 7',
               6: '<answer>7</answer>', 7: '2+5=<<2+5=7>>7\n#### 7'}  # fmt: skip
    run = opened(config_of(tmp_path, rows_of(60, answer=answers)), tmp_path)
    problems = run.inputs.train_problems[:8]
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        outcomes = verifier.check([('2+5=7\n#### 7', p.answer) for p in problems])
    assert set(outcomes) == {verify.Outcome.RIGHT}


def test_ordinary_problems_need_no_words(tmp_path, capsys):
    opened(config_of(tmp_path, rows_of(60)), tmp_path)
    assert 'data:' not in capsys.readouterr().out


def test_one_file_for_both_splits_has_the_training_problems_first(tmp_path):
    path = str(tmp_path / 'train.jsonl')
    run = opened(config_of(tmp_path, rows_of(70), path=path), tmp_path)
    assert [p.id for p in run.inputs.train_problems] == [f'train/{i}' for i in range(1, 61)]
    assert [p.id for p in run.inputs.test_problems] == [f'train/{i}' for i in range(61, 71)]
    message = refused(config_of(tmp_path, rows_of(69), path=path), tmp_path)
    assert 'has only 9 test problems after the first 60, which are trained on' in message
    message = refused(
        config_of(tmp_path, rows_of(70), path=path, test_split='validation'), tmp_path
    )
    assert 'is one file' in message and "data.test_split='test'" in message


# Solutions without a number


def test_solutions_without_a_number_give_no_refinements_and_are_counted(tmp_path):
    words = dict.fromkeys((0, 5, 30), 'Ann went further than Bob.\nShe was the fastest.')
    config = config_of(tmp_path, rows_of(60, solution=words))
    config.tokenizer.kind = 'train'
    run = opened(config, tmp_path)  # the tokenizer is trained on all of them
    settings, chat = run.settings.actor, run.inputs.chat
    generated = list(actor.generate_examples(settings, chat, run.inputs.train_problems))
    assert sum(example is None for _, example in generated) == 2  # of the first 20
    examples = actor.actor_examples(settings, chat, run.inputs.train_problems)
    assert len(examples) == 20 + 18
    refinements = actor.actor_examples(settings, chat, run.inputs.train_problems, plain=False)
    assert len(refinements) == 18
    with pytest.raises(mistakes.NoMistakeError):
        mistakes.corrupt(run.inputs.train_problems[0], rng=random.Random(0))


@pytest.mark.slow
def test_a_run_counts_what_it_leaves_out_in_its_summaries(tmp_path, capsys):
    words = dict.fromkeys((0, 5, 30), 'Ann went further than Bob.')
    long = {6: 'Ann has 3 pens. ' + 'Note this. ' * 600 + 'How many?'}
    config = config_of(tmp_path, rows_of(60, solution=words, question=long), too_long='drop')
    config.base.fit.num_steps = config.actor.fit.num_steps = 1
    config.model.num_layers = 1
    with (
        verify.Verifier(num_workers=1, timeout_s=1.0) as verifier,
        session.open_run(config, tmp_path / 'run', verifier=verifier).started() as run,
    ):
        for stage in ('base', 'actor'):
            summary = runner.run_stage(run, stage)
    assert summary['refinements_without_number'] == 2
    data = json.loads((tmp_path / 'run' / 'summary.json').read_text())['data']
    assert (data['train']['problems'], data['train']['too_long']) == (59, 1)
    assert data['train']['too_long_ids'] == ['train/7'] and not data['test']['too_long_ids']
    printed = capsys.readouterr().out
    assert '1 train problems are left out' in printed and "'train/7'" in printed
    assert 'left out: 2 refinements without number' in printed


# Lengths


def long_question(i):
    return f'Ann has {i} pens. ' + 'Note this. ' * 600 + 'How many?'


def test_questions_that_are_too_long_are_named(tmp_path):
    train = rows_of(60, question={i: long_question(i) for i in (5, 7)}, id={7: 'seven'})
    test = rows_of(10, question={2: long_question(2)})
    message = refused(config_of(tmp_path, train, test), tmp_path)
    assert "data.too_long='drop' to leave out 3 of 70 questions" in message
    for text in ("'train/6'", f"'seven' ({tmp_path}/train.jsonl:8", "'test/3'", 'must be at least'):
        assert text in message


def test_questions_that_are_too_long_are_dropped_and_counted(tmp_path, capsys):
    train = rows_of(60, question={i: long_question(i) for i in (5, 7)})
    # The same ids in both splits: a test problem is not dropped for its namesake.
    ids = {i: f'p{i}' for i in range(60)}
    for i, row in enumerate(train):
        row['id'] = ids[i]
    test = rows_of(10, id={i: ids[i] for i in range(10)}, question={3: long_question(3)})
    run = opened(config_of(tmp_path, train, test, too_long='drop'), tmp_path)
    kept = [p.id for p in run.inputs.train_problems]
    assert kept == [ids[i] for i in range(60) if i not in (5, 7)]
    assert [p.id for p in run.inputs.test_problems] == [ids[i] for i in range(10) if i != 3]
    counts = run.inputs.counts
    assert (counts['train'].too_long, counts['train'].problems) == (2, 58)
    assert (counts['test'].too_long, counts['test'].problems) == (1, 9)
    assert "'p5'" in capsys.readouterr().out


def test_dropping_what_fits_changes_nothing(tmp_path):
    kept = opened(config_of(tmp_path, rows_of(60), too_long='drop'), tmp_path)
    plain = opened(config_of(tmp_path, rows_of(60)), tmp_path)
    assert kept.inputs.train_problems == plain.inputs.train_problems
    assert kept.inputs.counts == plain.inputs.counts


def test_the_longest_question_that_is_kept_is_the_longest_that_fits(tmp_path):
    questions = {
        i: f'Ann has {i} pens. ' + 'Note this. ' * (2 * i) + 'How many?' for i in range(60)
    }
    run = opened(config_of(tmp_path, rows_of(60, question=questions), too_long='drop'), tmp_path)
    kept, dropped = run.inputs.counts['train'].problems, run.inputs.counts['train'].too_long
    assert kept and dropped and kept + dropped == 60
    longest = max(lengths.question_lengths(run.inputs).values())
    check = lengths.length_check(run.settings, run.inputs)
    room = lengths.question_room(check, 10_000)
    assert longest <= room < longest + 20  # the next question would be longer than the room


def test_hints_that_leave_no_room_are_dropped_with_their_questions(tmp_path):
    long = '\n'.join(['3 + 4 = 7'] * 400) + '\n#### 7'
    rows = rows_of(60, solution={4: long})
    config = config_of(tmp_path, rows, stages=REINFORCED, too_long='drop')
    config.base.fit.num_steps = 0
    config.reinforce.turns.hint_share = 1.0
    run = opened(config, tmp_path)
    assert run.inputs.counts['train'].too_long == 1
    assert run.inputs.counts['train'].too_long_ids == ('train/5',)


def test_too_few_remaining_problems_are_refused(tmp_path):
    every = {i: long_question(i) for i in range(60)}
    config = config_of(tmp_path, rows_of(60, question=every), too_long='drop')
    assert "data.too_long='drop' leaves no train problem" in refused(config, tmp_path)
    del every[0]
    rows = rows_of(60, question=every)
    config = config_of(tmp_path, rows, stages=REINFORCED, too_long='drop')
    message = refused(config, tmp_path)
    assert 'leaves 1 train problems, fewer than reinforce.num_problems=2' in message


def test_settings_that_are_too_small_for_any_question_drop_none(tmp_path):
    config = config_of(tmp_path, rows_of(60), too_long='drop')
    config.model.max_length = 100
    message = refused(config, tmp_path)
    assert message.startswith('model.max_length=100 must be at least')
    assert 'too_long' not in message


# Paths


def test_paths_of_a_config_are_in_the_working_directory_then_in_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = 'configs/lab.py'  # in the project
    assert paths.resolve(own) == build.ROOT / own
    assert str(paths.resolve('nowhere/at/all')) == 'nowhere/at/all'
    (tmp_path / 'configs').mkdir()
    (tmp_path / own).write_text('mine')
    assert paths.resolve(own).read_text() == 'mine'
    assert paths.resolve(str(build.ROOT / own)) == build.ROOT / own
    assert str(paths.resolve('gs://bucket/a')) == 'gs://bucket/a'


def test_every_path_of_a_config_follows_the_rule(tmp_path, monkeypatch):
    """Problems, tokenizer, saved models and critiques: none has a rule of its own."""
    config = config_of(tmp_path, rows_of(60))
    monkeypatch.chdir(tmp_path)
    config.data.update(path='.', test_source='jsonl', test_path='test.jsonl', data_dir='d')
    opened(config, tmp_path)
    for field, value in (
        ('base.checkpoint', 'nowhere'),
        ('critic.checkpoint', 'nowhere'),
        ('critique.annotator_path', 'nowhere'),
        ('tokenizer.path', 'nowhere'),
    ):
        changed = config.copy_and_resolve_references()
        section, name = field.split('.')
        changed[section][name] = value
        changed.critique.annotator = 'file' if section == 'critique' else 'oracle'
        changed.tokenizer.kind = 'file' if section == 'tokenizer' else 'train'
        assert field in refused(changed, tmp_path)
        (tmp_path / 'nowhere').mkdir(exist_ok=True)
        assert 'not found' not in refused(changed, tmp_path) or section == 'tokenizer'
        (tmp_path / 'nowhere').rmdir()
