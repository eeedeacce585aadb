"""Trackers show what a run writes, and whatever their library does is nothing to the run."""

import json
import math
import os
import pathlib
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from etils import epath
from tensorboardX.proto import event_pb2

from elenchus.data.records import Episode, Turn, TurnFacts
from elenchus.train.metrics import event_files, trackers, tracking, writers
from tests.train.metrics.test_event_files import disk_files, events_of

STAND_IN = """
import json, os, signal, sys, time
def act(place):
    kind, _, where = os.environ.get('STAND_IN', '').partition(' ')
    if where != place:
        return
    if kind == 'raises': raise RuntimeError('no network \\x1b[2J')
    if kind == 'hangs':
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if kind == 'exits': sys.exit(0)
    if kind == 'ends': os._exit(3)
    if kind == 'aborts': os.kill(os.getpid(), signal.SIGSEGV)
    if kind == 'asks': input('password?')
    if kind == 'chats':
        for _ in range(20000): print('x' * 100, flush=True); print('y' * 100, file=sys.stderr)
def note(**values):
    with open(os.environ['STAND_IN_CALLS'], 'a') as file:
        file.write(json.dumps(values) + '\\n')
act('import')
"""
WANDB = STAND_IN + '''
def Settings(**values): return values
def Histogram(np_histogram): return {'histogram': np_histogram}
def Html(text, inject): return {'html': text}
class Run:
    def define_metric(self, name, **options): pass
    def log(self, values): act('log'); note(log=values)
    def finish(self, exit_code): act('finish'); note(finish=exit_code)
def init(**options): act('init'); note(init=options); return Run()
'''  # fmt: skip
TRACKIO = (
    STAND_IN
    + """
def Histogram(np_histogram): return {'histogram': np_histogram}
def Markdown(text): return {'markdown': text}
def init(**options): act('init'); note(init=options)
def log(values): act('log'); note(log=values)
def finish(): act('finish'); note(finish=None)
"""
)
SETTINGS = tracking.TrackingSettings(('wandb',), 'elenchus')
EPISODE = Episode(
    'p<b>', 2,
    (
        Turn('question', (), (1, 2)),
        Turn('attempt', (), (3, 4, 5), (-0.5,) * 3, facts=TurnFacts(correct=False)),
        Turn('critique', (), (6,), (-0.5,)),
        Turn('refinement', (), (7, 8), (-0.5,) * 2, facts=TurnFacts(correct=True)),
    ),
)  # fmt: skip


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Modules in the place of the libraries; returns what they were asked to do."""
    folder = tmp_path / 'modules'
    folder.mkdir()
    (folder / 'wandb.py').write_text(WANDB)
    (folder / 'trackio.py').write_text(TRACKIO)
    calls = tmp_path / 'calls.jsonl'
    monkeypatch.setattr(sys, 'path', [str(folder), *sys.path])
    monkeypatch.setenv('STAND_IN_CALLS', str(calls))
    monkeypatch.delenv('STAND_IN', raising=False)
    return lambda: list(map(json.loads, calls.read_text().splitlines())) if calls.exists() else []


def decode(tokens):
    return ' '.join(f'word{token}' for token in tokens) + '\x1b[2J <script>'


def run(workdir, settings=SETTINGS, rows=3):
    """What a run shows: rows of a stage, then episodes; returns the seconds that it took."""
    folder, start = epath.Path(workdir) / 'stages' / '01-actor', time.monotonic()
    with tracking.tracked(settings, epath.Path(workdir), config={'seed': 1}, decode=decode):
        board = epath.Path(workdir) / 'tensorboard' / '01-actor'
        with writers.Writer(folder, tensorboard=board, stage='01-actor') as writer:
            writer.truncate(-1)
            for step in range(rows):
                writer.write(step, {'loss/total': step / 2, 'loss/nan': math.nan})
        tracking.show_episodes(folder, 5, [EPISODE] * 3, values={'reward': [0.0, 1.0, math.nan]})
    assert len(writers.read_rows(folder / writers.METRICS)) == rows
    return time.monotonic() - start


@pytest.mark.parametrize('library', ['wandb', 'trackio'])
def test_a_tracker_gets_rows_histograms_and_texts(tmp_path, stand_in, library, capsys):
    run(tmp_path / 'lab', tracking.TrackingSettings((library,), 'mine'))
    first, *calls, last = stand_in()
    options = first['init']
    assert options['project'] == 'mine' and options['config'] == {'seed': 1}
    assert options['name'].startswith('lab') and options['resume'] == 'allow'
    assert last == {'finish': 0 if library == 'wandb' else None}
    logs = [call['log'] for call in calls]
    assert logs[:3] == [{'01-actor/step': i, '01-actor/loss/total': i / 2} for i in range(3)]
    shown = {name: value for log in logs[3:] for name, value in log.items()}
    assert shown.pop('01-actor/step') == 5
    names = ('tokens/attempt', 'tokens/critique', 'tokens/refinement', 'reward')
    histograms = {name: shown.pop(f'01-actor/{name}')['histogram'] for name in names}
    assert sum(histograms['reward'][0]) == 2 and sum(histograms['tokens/attempt'][0]) == 3
    assert sorted(shown) == ['01-actor/episode/0', '01-actor/episode/1']
    (text,) = shown['01-actor/episode/0'].values()
    assert '[attempt, wrong]' in text and '[refinement, right]' in text and '\x1b' not in text
    assert ('&lt;script&gt;' in text) == (library == 'wandb')
    if library == 'trackio':  # a block of code
        assert all(line.startswith('    ') for line in text.splitlines())
    assert not capsys.readouterr().err


def test_a_run_that_goes_on_is_the_same_run_there(tmp_path, stand_in):
    run(tmp_path / 'lab')
    run(tmp_path / 'lab')
    run(tmp_path / 'other')
    first, second, other = (call['init']['id'] for call in stand_in() if 'init' in call)
    assert first == second != other


@pytest.mark.parametrize('place', ['import', 'init', 'log', 'finish'])
@pytest.mark.parametrize('kind', ['raises', 'hangs', 'exits', 'ends', 'aborts', 'asks'])
def test_a_library_that_fails_costs_its_rows_only(
    tmp_path, monkeypatch, stand_in, capsys, kind, place
):
    monkeypatch.setenv('STAND_IN', f'{kind} {place}')
    monkeypatch.setattr(trackers, 'CLOSE_S', 0.3 if kind == 'hangs' else 60.0)
    seconds = run(tmp_path / 'lab')
    errors = capsys.readouterr().err
    assert errors.count('warning: wandb lacks rows') == 1
    assert kind != 'hangs' or seconds < 10
    assert '\x1b' not in errors and 'Traceback' not in errors
    assert ('no network' in errors) == (kind == 'raises')


@pytest.mark.slow
def test_a_library_that_prints_much_does_not_fill_a_pipe(tmp_path, monkeypatch, stand_in, capsys):
    monkeypatch.setenv('STAND_IN', 'chats log')
    run(tmp_path / 'lab')
    assert stand_in()[-1] == {'finish': 0} and not capsys.readouterr().err


def test_rows_are_dropped_when_too_many_wait(tmp_path, monkeypatch, stand_in, capsys):
    monkeypatch.setenv('STAND_IN', 'hangs init')
    monkeypatch.setattr(trackers, 'CLOSE_S', 0.2)
    monkeypatch.setattr(trackers, 'PENDING_BYTES', 20_000)
    assert run(tmp_path / 'lab', rows=1000) < 20
    assert capsys.readouterr().err.count('warning: wandb lacks rows') == 1


def test_a_python_that_cannot_be_started_costs_rows_only(tmp_path, monkeypatch, stand_in, capsys):
    monkeypatch.setattr(trackers.sys, 'executable', '/nowhere/python')
    run(tmp_path / 'lab')
    assert capsys.readouterr().err.count('warning: wandb lacks rows') == 1


def test_a_run_that_fails_or_is_killed_is_marked_as_failed(tmp_path, stand_in):
    with (
        pytest.raises(ValueError, match='wrong'),
        tracking.tracked(SETTINGS, epath.Path(tmp_path), config={}, decode=decode),
    ):
        raise ValueError('wrong')
    assert stand_in()[-1] == {'finish': 1}
    first = {'library': 'wandb', 'id': 'i', 'name': 'n', 'project': 'p', 'config': {}, 'folder': ''}
    row = {'stage': '01-actor', 'step': 1, 'scalars': {'loss/total': 0.5}}
    lines = ''.join(json.dumps(message) + '\n' for message in (first, row))
    environment = os.environ | {'PYTHONPATH': sys.path[0]}
    # Of a process that is killed the pipe just ends.
    subprocess.run([sys.executable, trackers.PROGRAM], input=lines, text=True, env=environment)
    *_, last_row, last = stand_in()
    assert last_row['log']['01-actor/loss/total'] == 0.5 and last == {'finish': 1}


def test_without_a_run_nothing_is_shown(tmp_path):
    tracking.show_episodes(tmp_path / 'stages' / '01-actor', 1, [EPISODE])
    assert tracking.of_stage('01-actor') == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('libraries', 'project', 'message'),
    [
        (('wandb', 'wandb'), 'p', r"names one twice; nearest: \('wandb',\)"),
        ((), ' ', "tracking.project='' has no name; nearest: 'elenchus'"),
    ],
)
def test_settings_that_cannot_be_meant(libraries, project, message):
    with pytest.raises(ValueError, match=message):
        tracking.TrackingSettings(libraries, project)


def tensors(content: bytes) -> dict[str, tuple[int, event_pb2.Event]]:
    return {
        value.tag: (event.step, value)
        for event in events_of(content)
        for value in event.summary.value
    }


def test_tensorboard_has_histograms_and_texts(tmp_path):
    values = np.random.default_rng(0).normal(size=1000)
    file = event_files.EventFile(tmp_path / 'board')
    file.histogram(3, 'reward', [*values, math.nan, math.inf])
    file.histogram(3, 'nothing', [math.nan])
    file.text(4, 'episode/0', 'one\n# two \x1b[2J <b>')
    file.close()
    (content,) = disk_files(tmp_path / 'board')
    shown = tensors(content)
    step, value = shown['reward']
    assert step == 3 and value.histo.num == 1000
    assert value.histo.min == values.min() and value.histo.max == values.max()
    text = next(v for name, (_, v) in shown.items() if name.startswith('episode/0'))
    assert text.metadata.plugin_data.plugin_name == 'text'
    assert text.tensor.string_val == [b'    one\n    # two \\x1b[2J <b>']
    assert not any(name.startswith('nothing') for name in shown)


@pytest.mark.parametrize(
    'values',
    [[0.3, 0.1 + 0.2], [0.3] * 500 + [0.1 + 0.2] * 300, [1e16, 1e16 + 2], [-1e308, 0.0, 1e308]],
)
def test_values_that_no_bins_divide_have_a_histogram(tmp_path, values):
    """NumPy refuses a range of rounding errors, and one whose size is beyond float64."""
    file = event_files.EventFile(tmp_path / 'board')
    file.histogram(1, 'reward', values)
    file.close()
    (content,) = disk_files(tmp_path / 'board')
    assert tensors(content)['reward'][1].histo.num == len(values)
    sent = []
    board = trackers.StageBoard(types.SimpleNamespace(send=sent.append), 'reinforce')
    board.histogram(1, 'reward', values)
    assert sum(sent[0]['histogram'][0]) == len(values)


def test_episodes_are_shown_in_a_folder_of_their_own_and_not_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, 'MAX_TEXTS', 4)
    folder = epath.Path(tmp_path) / 'stages' / '04-evaluate'
    settings = tracking.TrackingSettings((), 'p')
    with tracking.tracked(settings, epath.Path(tmp_path), config={}, decode=decode):
        for number in range(0, 50, 10):
            tracking.show_episodes(folder, number, [EPISODE] * 3)
    board = pathlib.Path(tmp_path) / 'tensorboard' / '04-evaluate' / 'episodes'
    (content,) = disk_files(board)
    tags = [value.tag for event in events_of(content) for value in event.summary.value]
    assert sum('episode/' in tag for tag in tags) == 4
    assert sum('tokens/attempt' in tag for tag in tags) == 5


@pytest.mark.slow
def test_tensorboard_itself_reads_them(tmp_path):
    accumulators = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    file = event_files.EventFile(tmp_path / 'board')
    file.write(1, {'loss': 0.5})
    file.histogram(2, 'reward', [0.0, 1.0, 1.0])
    file.text(3, 'episode/0', 'words')
    file.close()
    reader = accumulators.EventAccumulator(str(tmp_path / 'board')).Reload()
    assert [row.value for row in reader.Scalars('loss')] == [0.5]
    assert reader.Histograms('reward')[0].histogram_value.num == 3
    (tag,) = reader.Tags()['tensors']
    assert reader.Tensors(tag)[0].tensor_proto.string_val[0].strip() == b'words'


@pytest.mark.slow
def test_wandb_itself_takes_all_of_it_offline(tmp_path, monkeypatch, capsys):
    pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setattr(trackers, 'CLOSE_S', 60.0)
    run(tmp_path / 'lab')
    assert not capsys.readouterr().err
    (log,) = (tmp_path / 'lab').glob('wandb/offline-run-*/run-*.wandb')
    content = log.read_bytes()
    for text in (b'01-actor/loss/total', b'01-actor/reward', b'01-actor/episode/0'):
        assert text in content
    assert list((tmp_path / 'lab').glob('wandb/offline-run-*/files/media/html/**/*.html'))


@pytest.mark.slow
def test_wandb_without_a_login_costs_rows_only(tmp_path, monkeypatch, capsys):
    pytest.importorskip('wandb')
    for name in ('WANDB_MODE', 'WANDB_API_KEY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('WANDB_BASE_URL', 'http://127.0.0.1:9')
    run(tmp_path / 'lab')
    assert capsys.readouterr().err.count('warning: wandb lacks rows') == 1


@pytest.mark.slow
def test_trackio_itself_takes_all_of_it(tmp_path, monkeypatch, capsys):
    pytest.importorskip('trackio')
    monkeypatch.setenv('TRACKIO_DIR', str(tmp_path / 'trackio'))
    monkeypatch.setattr(trackers, 'CLOSE_S', 60.0)
    run(tmp_path / 'lab', tracking.TrackingSettings(('trackio',), 'mine'))
    assert not capsys.readouterr().err
    assert (tmp_path / 'trackio' / 'mine.db').exists()
    content = (tmp_path / 'trackio' / 'mine.db').read_bytes()
    assert b'01-actor/loss/total' in content or list((tmp_path / 'trackio').glob('mine.db-wal'))
