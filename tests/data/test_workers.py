"""What a worker of the verifier may not do, whatever an answer makes its comparison do."""

import subprocess

import pytest

from elenchus.data.grading import verify
from elenchus.data.grading.verify import Outcome

COMPARATORS = """
import os, signal, socket, subprocess

def fork_bomb():
    while True:
        os.fork()

def memory_bomb():
    return [bytearray(5 << 30) for _ in range(100)]

ATTACKS = {
    'forks': fork_bomb,
    'memory': memory_bomb,
    'program': lambda: subprocess.run(['true']),
    'shell': lambda: os.system('true'),
    'spawn': lambda: os.posix_spawn('/bin/true', ['true'], {}),
    'writes': lambda: open('written', 'w'),
    'deletes': lambda: os.remove(__file__),
    'socket': lambda: socket.socket(),
    'files': lambda: [os.open('/dev/null', os.O_RDONLY) for _ in range(10_000)],
    'kills': lambda: os.kill(os.getppid(), signal.SIGKILL),
}

def attack(answer, reference):
    name = next((name for name in ATTACKS if name in answer), None)
    if name is not None:
        ATTACKS[name]()
    return True
"""


@pytest.mark.parametrize(
    'names',
    [
        ('forks', 'program', 'shell', 'spawn'),
        ('memory', 'files', 'writes', 'deletes', 'socket', 'kills'),
    ],
)
def test_an_attack_by_an_answer_costs_its_pair_and_no_worker(tmp_path, monkeypatch, names):
    (tmp_path / 'attacks.py').write_text(COMPARATORS)
    monkeypatch.syspath_prepend(tmp_path)
    pairs = [(rf'#### \{name} < 1', 'a > 1') for name in names]
    with verify.Verifier(comparator='attacks:attack', num_workers=1, timeout_s=5.0) as checker:
        checker.check([('#### a < 7', 'a > 7')])
        (worker,) = checker._idle
        assert checker.check(pairs) == [Outcome.ERROR] * len(pairs)
        assert checker.check([('#### a < 8', 'a > 7')]) == [Outcome.RIGHT]
        assert checker._idle == [worker] and worker.is_alive
        group = subprocess.run(['ps', '-o', 'pid=', '-g', str(worker.pid)],
                               capture_output=True, text=True)  # fmt: skip
        assert len(group.stdout.split()) <= 1
    assert (tmp_path / 'attacks.py').exists()
