"""What commands read and write in buckets: the same as on a disk."""

import io
import json
import pathlib
import time

import numpy as np
import pytest
from etils import epath

from elenchus.data.critiques import conversion
from elenchus.data.files import atomic, prepared_datasets
from elenchus.data.records import Batch
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text import tokenizer_training
from elenchus.train import nonfinite
from elenchus.train.benchmarks import judge_command, players, problem_sets
from elenchus.train.checkpoints import saved_models
from elenchus.train.report import html_page
from elenchus.train.run import lease, lock
from tests.support import tiny_model

fake_gcs = pytest.importorskip('tests.support.fake_gcs', exc_type=ImportError)

GS = 'gs://bucket'
ROWS = [{'question': f'q{i}', 'answer': f'a\n#### {i}', 'solution': 's'} for i in range(3)]
JUDGED = [
    {
        'id': str(i),
        'problem': 'p',
        'steps': ['a', 'b'],
        'label': i - 1,
        'final_answer_correct': i == 0,
    }
    for i in range(3)
]


@pytest.fixture
def fake():
    """A server with an empty bucket, which the clients of this process use."""
    with fake_gcs.in_this_process() as server:
        yield server


def lines(rows) -> bytes:
    return '\n'.join(map(json.dumps, rows)).encode()


def test_problem_sets_of_an_evaluation(fake, tmp_path):
    fake.objects.put('own.jsonl', lines(ROWS))
    fake.objects.put('sets/gsm8k/test.jsonl', lines(ROWS))
    options = {'data_dir': f'{GS}/sets', 'num_problems': 2, 'form': 'digits'}
    for entry in (f'{GS}/own.jsonl', f'gsm8k={GS}/sets/gsm8k', 'gsm8k'):
        folder = options['data_dir'] if entry == 'gsm8k' else str(tmp_path)
        chosen = problem_sets.read_set(entry, **options | {'data_dir': folder})
        assert [p.question for p in chosen.problems] == ['q0', 'q1'] and GS in chosen.place
    with pytest.raises(ValueError, match='data_dir=gs://bucket/sets'):
        problem_sets.read_set('svamp', **options)  # to be downloaded and prepared there


def test_benchmarks_of_a_critic(fake):
    fake.objects.put('pb/gsm8k.jsonl', lines(JUDGED))
    for entry in (f'processbench={GS}/pb', f'processbench={GS}/pb/gsm8k.jsonl'):
        (chosen,) = judge_command.read_sets([entry], data_dir='', num_rows=2)
        assert len(chosen.solutions) == 2 and chosen.path.name == 'gsm8k.jsonl'


def test_players_their_tokenizer_and_their_report(fake):
    model = tiny_model.make_model(tiny_model.CONFIG, 0)
    tokenizer = tokenizers.lab_tokenizer()
    folder = epath.Path(f'{GS}/run/stages/01-actor')
    saved_models.save_model(folder / 'model', model, tokenizer_fingerprint=tokenizer.fingerprint)
    assert players.find_model('model', f'{GS}/run/stages/01-actor') == folder / 'model'
    with pytest.raises(ValueError, match='nearest: gs://bucket/run/stages/01-actor'):
        players.find_model('model', f'{GS}/run')
    with pytest.raises(ValueError, match='folder not found: --model=gs://bucket/no'):
        players.find_model('model', f'{GS}/no')
    fake.objects.put('run/tokenizer.model', b'of another')
    with pytest.raises(ValueError, match=r'there is gs://bucket/run/tokenizer\.model'):
        players.find_tokenizer('model', folder / 'model', 'none')
    page = html_page.write_report(f'{GS}/run')
    assert b'01-actor' in fake.objects.content('run/report.html') and page.exists()


def test_a_batch_that_is_not_finite_is_kept(fake):
    guard = nonfinite.FiniteGuard(f'{GS}/run/stages/00-base', 'skip')
    batch = tiny_model.random_batch(1, rows=2)
    metrics = {'loss/total': np.nan, 'grads/norm': np.inf, 'grads/finite': 0.0}
    guard.push(7, [nonfinite.Update(metrics, batch)])
    guard.flush()
    (name,) = fake.objects.names()
    assert name == 'run/stages/00-base/nonfinite/step-000007-0.npz'
    stored = np.load(io.BytesIO(fake.objects.content(name)))
    for field, values in zip(Batch._fields, batch, strict=True):
        np.testing.assert_array_equal(stored[field], values)


def test_records_are_converted_and_tokenizers_trained(fake):
    record = {'question': 'q', 'response': 'a\n#### 1', 'critique': 'The answer is correct.'}
    fake.objects.put('in.jsonl', lines([record]))
    conversion.convert(f'{GS}/in.jsonl', f'{GS}/out.jsonl', form=None)
    assert json.loads(fake.objects.content('out.jsonl'))['question'] == 'q'
    with pytest.raises(ValueError, match='into itself'):
        conversion.convert(f'{GS}/in.jsonl', f'{GS}/in.jsonl', form=None)
    with pytest.raises(ValueError, match='from a disk only'):
        prepared_datasets.find_dataset(GS)
    fake.objects.put('text.txt', ('one two three four five six\n' * 40).encode())
    tokenizer_training.train_from_files(
        [f'{GS}/text.txt'], f'{GS}/t.model', vocab_size=300, model_type='bpe'
    )
    assert tokenizers.load_tokenizer(f'{GS}/t.model').vocab_size <= 300


def test_two_hosts_on_one_work_directory(fake, monkeypatch):
    """The second is refused with the name of the first; a dead one's lease is taken over."""
    monkeypatch.setattr(lease, 'RENEW_S', 0.1)
    monkeypatch.setattr(lease, 'STALE_S', 1.5)
    with lock.locked(f'{GS}/run'):
        with pytest.raises(ValueError, match='in use by process'), lock.locked(f'{GS}/run'):
            pass
        atomic.check_exists(f'{GS}/run/lock.json')
    assert 'run/lock.json' not in fake.objects.names()
    fake.objects.put('run/lock.json', b'{"host": "dead", "process": 1, "since": "yesterday"}')
    with lock.locked(f'{GS}/run'):
        assert json.loads(fake.objects.content('run/lock.json'))['host'] != 'dead'
        # Another host takes over, as after a pause of this one: no more writes.
        fake.objects.put('run/lock.json', b'{"host": "other", "process": 1, "since": "now"}')
        with pytest.raises(RuntimeError, match='taken over.*other'):
            for _ in range(100):
                atomic.check_exists(f'{GS}/run/lock.json')
                time.sleep(0.05)
    assert b'other' in fake.objects.content('run/lock.json')


@pytest.mark.parametrize('status', [503, 429])
def test_a_lease_survives_a_bucket_that_fails_for_a_while(fake, monkeypatch, status):
    monkeypatch.setattr(lease, 'RENEW_S', 0.05)
    with lock.locked(f'{GS}/run'):
        fault = fake.fail('write bucket/run/lock.json', status=status, times=8)
        for _ in range(200):
            if fault.seen > 10:
                break
            time.sleep(0.02)
        lost = fake.fail('write bucket/run/lock.json', 'lost')
        for _ in range(200):
            if lost.seen > 3:
                break
            time.sleep(0.02)
        assert fault.seen > 10 and lost.seen > 3
        atomic.check_exists(f'{GS}/run/lock.json')
    assert 'run/lock.json' not in fake.objects.names()


def test_no_path_of_a_bucket_becomes_a_folder_of_this_machine(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atomic.write_text(f'{GS}/a/b', 'x')
    atomic.link_tree(f'{GS}/a', f'{GS}/c')
    atomic.delete_tree(f'{GS}/a')
    assert fake.objects.names() == ['c/b']
    assert not list(tmp_path.iterdir()) and not pathlib.Path('/gs').exists()
