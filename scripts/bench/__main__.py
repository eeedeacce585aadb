"""Measures this project's speed, and that of others on the same shapes, beside the machine's.

python -m scripts.bench --output runs/bench                          all cases, ours alone
python -m scripts.bench --output runs/bench --only decode,sft --size 1m --rounds 3
python -m scripts.bench --output runs/bench --peers                  and others, see below

Kinds of work: decode, prefill, ragged (requests of very different lengths), episode (attempt,
critique, refinement), sft and grpo steps. Sizes: 1m and 30m parameters; float32, random weights.

Every contender of a case is a process of its own. After each has run once, which compiles, they
take turns, round by round; the machine's matrix multiplication rate and read bandwidth are
measured in the same rounds. Medians of rounds are told, and ratios are medians of each round's
ratio, so a machine that is busy for a while spoils no comparison; absolute figures want an idle
one, or --clock=cpu, which counts processor time: pinned to one core, what that core would take if
it were idle. `of the bound` is the share reached of the roofline of shapes and machine.

--peers adds Hugging Face generate (and with a static cache and torch.compile), a plain torch step,
TRL's GRPO, and Tunix. They run by --peers_python and --tunix_python; where these are not given,
environments are made in .cache from the extras `peers` and `tunix` of pyproject.toml. Written are
bench.json, bench.md and bench.png.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from elenchus.data.files import atomic
from elenchus.scripts.bench import report
from elenchus.scripts.bench.cases import (
    CONTENDERS,
    SIZES,
    Case,
    Machine,
    bound_seconds,
    cases,
    load_settings,
)
from elenchus.scripts.bench.peers import CLOCKS
from elenchus.train.config import build, cli

_OUTPUT = flags.DEFINE_string('output', None, 'Folder for what is written.', required=True)
_ONLY = flags.DEFINE_list('only', list(CONTENDERS), f'Kinds of work: {", ".join(CONTENDERS)}.')
_SIZE = flags.DEFINE_list('size', list(SIZES), f'Model sizes: {", ".join(SIZES)}.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Measured rounds after the first.', lower_bound=1)
_PEERS = flags.DEFINE_bool('peers', False, 'Measure others as well.')
_PYTHONS = {
    extra: flags.DEFINE_string(f'{extra}_python', '', f'Python that has the extra `{extra}`.')
    for extra in ('peers', 'tunix')
}
_CLOCK = flags.DEFINE_enum('clock', 'wall', list(CLOCKS), 'What is counted.')
_CONFIG = flags.DEFINE_string(
    'config', 'configs/lab.py', 'Config whose numerics, optimizer and objective ours runs with.'
)


class Worker:
    """A contender's process; see scripts/bench/peers.py:serve."""

    def __init__(self, command: Sequence[str]):
        # Compilation is measured, so it is not taken from a cache; torch's threads wait passively,
        # since they stall on a busy machine.
        environment = {k: v for k, v in os.environ.items() if k != 'JAX_COMPILATION_CACHE_DIR'}
        environment['OMP_WAIT_POLICY'] = 'passive'
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=build.ROOT,
        )
        try:
            self.first = self._answer()
        except RuntimeError:
            self.stop()
            raise

    def run(self) -> dict[str, Any]:
        """One repetition: what the worker answers."""
        self._process.stdin.write('run\n')
        self._process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            command = ' '.join(map(str, self._process.args))
            raise RuntimeError(f'a worker has stopped; its error stands above: {command[:200]}')
        return json.loads(line)


def start_worker(contender: str, case: Case, pythons: dict[str, str]) -> Worker:
    """The process of a contender, or of the machine's own measurement."""
    told = [contender, json.dumps(dataclasses.asdict(case)), _CLOCK.value]
    if contender.startswith('ours') or contender == 'machine':
        return Worker([sys.executable, '-m', 'scripts.bench.ours', *told, _CONFIG.value])
    extra = extra_of(contender)
    return Worker([pythons[extra], '-m', f'scripts.bench.{extra}', *told])


def extra_of(contender: str) -> str:
    """The extra of pyproject.toml that one of others needs; its worker is EXTRA.py."""
    return 'tunix' if contender == 'tunix' else 'peers'


def measure(case: Case, *, rounds: int, pythons: dict[str, str]) -> list[dict[str, Any]]:
    """A row a contender. One of others' that cannot start is left out, and its name printed."""
    names = [n for n in CONTENDERS[case.work] if n.startswith('ours') or extra_of(n) in pythons]
    workers: dict[str, Worker] = {}
    with contextlib.ExitStack() as stack:
        for name in ('machine', *names):
            try:
                workers[name] = start_worker(name, case, pythons)
            except RuntimeError as error:
                if name == 'machine' or name.startswith('ours'):
                    raise
                print(f'{case.name}: {name} is left out: {error}', file=sys.stderr)
            else:
                stack.callback(workers[name].stop)
        order = list(workers)
        answers: dict[str, list[dict]] = {name: [] for name in order}
        for _ in range(rounds):
            for name in order:
                answers[name].append(workers[name].run())
            order = [*order[1:], order[0]]
    of_machine = Machine(
        *(statistics.median(a[k] for a in answers['machine']) for k in ('flops', 'bandwidth'))
    )
    bound = bound_seconds(case, load_settings(_CONFIG.value, case.model).model, of_machine)
    return [
        {'case': case.name, 'work': case.work, 'size': case.size, 'contender': name}
        | summary(answers[name], answers['ours'], first=workers[name].first, bound=bound)
        | {'machine': of_machine._asdict()}
        for name in workers
        if name != 'machine'
    ]


def summary(
    answers: Sequence[dict], ours: Sequence[dict], *, first: dict, bound: float
) -> dict[str, Any]:
    """What a contender's rounds come to, beside ours of the same rounds."""
    seconds = [answer['seconds'] for answer in answers]
    middle = statistics.median(seconds)
    pairs = zip(ours, seconds, strict=True)
    compilations = first.get('compilations')
    return {
        'seconds': seconds,
        'tokens_per_s': answers[0]['tokens'] / middle,
        'times_ours': statistics.median(o['seconds'] / s for o, s in pairs),
        'bound_s': bound,
        'of_bound': bound / middle,
        'first_s': first['first_s'],
        'compile_s': first.get('compile_s'),
        'recompilations': None
        if compilations is None
        else answers[-1]['compilations'] - compilations,
        'peak_bytes': answers[-1].get('device_peak_bytes') or answers[-1]['peak_bytes'],
    }


def make_python(extra: str) -> str:
    """The python of .cache/EXTRA, made from that extra of pyproject.toml where it is not there."""
    folder = build.ROOT / '.cache' / extra
    python = folder / 'bin' / 'python'
    if not python.exists():
        project = tomllib.loads((build.ROOT / 'pyproject.toml').read_text())
        wanted = project['project']['optional-dependencies'][extra]
        print(f'making {folder} with {wanted}')
        venv.create(folder, with_pip=True)
        subprocess.run([python, '-m', 'pip', 'install', '--quiet', *wanted], check=True)
    return str(python)


def check_names(flag: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f'--{flag}={",".join(unknown)}: there are {", ".join(known)}')


def about() -> dict[str, Any]:
    """What the figures were measured on and with."""
    return {
        'platform': platform.platform(),
        'backend': jax.default_backend(),
        'device': jax.devices()[0].device_kind,
        'clock': _CLOCK.value,
        'cores': len(os.sched_getaffinity(0)),
        'load': os.getloadavg(),
        'jax': jax.__version__,
    }


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f'unexpected {argv[1:]}; see --help')
    check_names('only', _ONLY.value, list(CONTENDERS))
    check_names('size', _SIZE.value, list(SIZES))
    pythons: dict[str, str] = {}
    if _PEERS.value:
        pythons = {extra: flag.value or make_python(extra) for extra, flag in _PYTHONS.items()}
    folder = pathlib.Path(_OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for size in _SIZE.value:
        for case in (case for work in _ONLY.value for case in cases(size, work)):
            measured = measure(case, rounds=_ROUNDS.value, pythons=pythons)
            print(report.table(measured), flush=True)
            rows += measured
            found = {'about': about(), 'rounds': _ROUNDS.value, 'rows': rows}
            atomic.write_text(folder / 'bench.json', json.dumps(found, indent=1) + '\n')
    report.write(folder, found)
    print(f'written: {folder}/bench.json, bench.md, bench.png')


if __name__ == '__main__':
    cli.run_main(main)
