"""The accounts of a run's time: what is damaged in them ends no run and hides nothing else."""

import json

import pytest

from elenchus.data.text import run_times
from elenchus.train.metrics import activity

FIRST = {'started': 0, 'heartbeat': 10, 'state': 'preempted', 'seconds': {'steps': 5.0}}
SECOND = {'started': 20, 'heartbeat': 30, 'state': 'running', 'seconds': {'steps': 5.0}}
DAMAGE = [
    *(b'', b'{', b'null', b'[]', b'\xff\xfe', b'{"seconds": {"steps": "x"}}'),
    json.dumps(SECOND | {'heartbeat': None}).encode(),
    json.dumps(SECOND)[:-9].encode(),
]


@pytest.mark.parametrize('damaged', DAMAGE)
def test_a_damaged_status_ends_no_run(damaged, tmp_path):
    (tmp_path / activity.STATUS).write_bytes(damaged)
    (tmp_path / activity.TIMING).write_text(json.dumps(FIRST) + '\n')
    activity.keep_unfinished(tmp_path)
    assert '10 s over 1 start,' in activity.goodput(tmp_path)


@pytest.mark.parametrize('damaged', DAMAGE)
def test_a_damaged_row_takes_no_other_with_it(damaged, tmp_path):
    (tmp_path / activity.STATUS).write_text(json.dumps(SECOND))
    (tmp_path / activity.TIMING).write_bytes(json.dumps(FIRST).encode() + b'\n' + damaged)
    for _ in range(2):
        activity.keep_unfinished(tmp_path)
        assert '30 s over 2 starts, goodput 33.3%' in activity.goodput(tmp_path)


def test_without_any_row_nothing_is_known(tmp_path):
    assert 'not known' in activity.goodput(tmp_path)
    assert run_times.read_rows('null\n') == []
