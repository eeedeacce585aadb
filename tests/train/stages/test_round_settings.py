"""Round controllers: fields of a round that a function changes, and what it may not change."""

import json
import pathlib
import shutil

import pytest

from elenchus.data.files import episode_files
from elenchus.sampling import slots
from elenchus.train.config import field_changes, round_fields
from elenchus.train.run import runner
from tests.train.stages.test_improve import fits, make_run  # noqa: F401

CONTROLLER = """
import json
import zlib


def mine(rounds, context):
    assert [r['knobs']['temperature'] for r in rounds] == [0.5, 0.6][:context.number - 1]
    digits = zlib.crc32(json.dumps([rounds, context.settings], sort_keys=True).encode())
    rounds.clear(), context.settings.clear()  # copies
    return {
        'sampling.temperature': 0.5 + 0.1 * (context.number - 1),
        'improve.explore.num_attempts': 1 + context.number,
        'improve.explore.keep': 1,
        'improve.num_problems': 7 + context.number,
        'improve.num_monitored': 1 + digits % 50,
        'improve.balance': 'question',
    }
"""


@pytest.fixture
def controlled(tmp_path):
    """controlled(source) -> run of two rounds whose controller is `mine` of this source."""
    count = iter(range(100))

    def controlled(source):
        folder = tmp_path / f'run{next(count)}'
        folder.mkdir()
        (folder / 'mine.py').write_text(source)
        return make_run(folder / 'work', 'vanilla', controller=f'{folder}/mine.py:mine')

    yield controlled
    slots.load.cache_clear()


def test_a_function_changes_fields_of_its_round_alone(controlled, fits):  # noqa: F811
    run = controlled(CONTROLLER)
    summary = runner.run_stage(run, 'vanilla')
    first, second = summary['rounds']
    for number, figures in enumerate((first, second), 1):
        assert figures['knobs'] == {'temperature': 0.5 + 0.1 * (number - 1), 'threshold': 0.0}
        assert figures['changes']['improve.num_problems'] == 7 + number
        folder = run.directory.stage('vanilla').path / f'round-{number}' / 'explored'
        files = sorted(pathlib.Path(folder).rglob('*.array_record'))
        explored = [e for path in files for e in episode_files.read_episode_file(path)]
        assert len(explored) == (7 + number) * (1 + number)
    # The config's own settings stay as they are.
    assert run.settings.improve.num_problems != 8
    assert run.samplers.settings.temperature == 0.7


def test_a_round_that_is_run_again_gets_the_same_changes(controlled, fits):  # noqa: F811
    """The summaries of rounds before are the same whether they were just run or are read."""
    run = controlled(CONTROLLER)
    whole = runner.run_stage(run, 'vanilla')
    stage = run.directory.stage('vanilla').path
    shutil.rmtree(stage / 'round-2')
    (stage / 'summary.json').unlink()
    again = runner.run_stage(run, 'vanilla')
    assert again['rounds'][0] == json.loads(json.dumps(whole['rounds'][0]))
    assert again['rounds'][1]['changes'] == whole['rounds'][1]['changes']


def test_without_a_controller_nothing_is_recorded(tmp_path, fits):  # noqa: F811
    summary = runner.run_stage(make_run(tmp_path, 'vanilla'), 'vanilla')
    assert all('changes' not in figures for figures in summary['rounds'])


def test_a_threshold_that_a_round_sets_is_one_of_scores(controlled, fits):  # noqa: F811
    run = controlled('def mine(rounds, context):\n    return {"improve.threshold": 0.25}')
    for figures in runner.run_stage(run, 'vanilla')['rounds']:
        assert figures['knobs'] == {'temperature': 0.7, 'threshold': 0.25}


@pytest.mark.parametrize(
    ('reply', 'message'),
    [
        ('None', r'returned None; it must return a dict \{field: value\}'),
        ('[]', r'returned \[\]; it must'),
        ('{1: 2}', r'returned \{1: 2\}; it must'),
        ('1 / 0', r'raised ZeroDivisionError'),
        (
            '{"improve.explore.num_atempts": 3}',
            r"no field that may change; nearest: 'improve\.explore\.num_attempts'",
        ),
        ('{"improve": {}}', 'no field that may change; nearest'),
        ('{"improve.num_rounds": 3}', "'improve.num_rounds' is no field that may change"),
        ('{"improve.controller": "none"}', 'no field that may change'),
        ('{"sampling.engine.num_slots": 3}', 'no field that may change'),
        ('{"reinforce.num_steps": 3}', 'no field that may change'),
        ('{"improve.explore.num_attempts": 0}', r'improve\.explore\.num_attempts=0 must be at'),
        ('{"improve.explore.num_attempts": 1.5}', r'num_attempts=1\.5 is of type float'),
        ('{"improve.explore.num_attempts": None}', r'num_attempts=None is of type NoneType'),
        ('{"sampling.temperature": float("nan")}', r'sampling\.temperature=nan must be a number'),
        ('{"improve.balance": "questions"}', r"did you mean 'question'"),
        ('{"improve.weighting": "mine.py:f"}', r"weighting='mine.py:f' must be built in here"),
        ('{"improve.fit.optimizer.name": "adam"}', r'improve\.fit\.optimizer\.name'),
    ],
)
def test_what_a_round_may_not_have_is_named(controlled, fits, reply, message):  # noqa: F811
    run = controlled(f'def mine(rounds, context):\n    return {reply}')
    with pytest.raises(ValueError, match=message) as error:
        runner.run_stage(run, 'vanilla')
    text = str(error.value)
    assert text.startswith('improve.controller') and 'mine.py:' in text and '\n' not in text
    assert not (run.directory.stage('vanilla').path / 'round-1' / 'explored').exists()


def test_every_field_that_may_change_can_be_set_to_its_value(tmp_path):
    run = make_run(tmp_path, 'vanilla')
    sections = {'improve': run.settings.improve, 'sampling': run.settings.sampling}
    known = {p: leaf for name, s in sections.items() for p, leaf in field_changes.leaves(s, name)}
    fields = [path for path in known if round_fields.may_change(path)]
    assert {'improve.fit.num_steps', 'improve.explore.teacher', 'sampling.top_p'} <= set(fields)
    values = {path: known[path].value for path in fields}
    assert field_changes.changed(sections, values, fields) == sections
