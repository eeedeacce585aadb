"""Measures the speeds of contenders, each in its own process, in interleaved rounds."""

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
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from elenchus.data.files import atomic
from elenchus.scripts.bench import report
from elenchus.scripts.bench.cases import (
    CONTENDERS,
    Case,
    Machine,
    bound_seconds,
    cases,
    load_settings,
)
from elenchus.train.config import build


@dataclasses.dataclass(frozen=True)
class BenchSettings:
    """Settings of a benchmark."""

    works: Sequence[str]  # kinds of work, keys of CONTENDERS
    sizes: Sequence[str]  # model sizes, keys of SIZES
    rounds: int  # measured rounds after the first run
    clock: str  # key of CLOCKS: wall time or processor time
    config: str  # config file with the numerics, optimizer and objective of our contenders
    pythons: Mapping[str, str]  # extra of pyproject.toml -> its Python; empty: no peers


class Worker:
    """Process of a contender; its loop is scripts/bench/peers.py:serve.

    Raises RuntimeError if the process ends.
    """

    def __init__(self, command: Sequence[str]):
        # No compilation cache, because compilation is measured. Threads of torch wait passively,
        # because active waiting stalls on a busy machine.
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
            self.first = self._read_answer()
        except RuntimeError:
            self.stop()
            raise

    def run(self) -> dict[str, Any]:
        """Runs one round; returns the worker's answer."""
        self._process.stdin.write('run\n')
        self._process.stdin.flush()
        return self._read_answer()

    def stop(self) -> None:
        """Closes the worker's input, which ends its loop, and waits for it."""
        self._process.communicate()

    def _read_answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            command = ' '.join(map(str, self._process.args))
            raise RuntimeError(f'a worker has stopped; its error is above: {command[:200]}')
        return json.loads(line)


def start_worker(contender: str, case: Case, settings: BenchSettings) -> Worker:
    """Starts the process of a contender, or of 'machine', which measures the machine itself."""
    arguments = [contender, json.dumps(dataclasses.asdict(case)), settings.clock]
    if is_ours(contender) or contender == 'machine':
        command = [sys.executable, '-m', 'scripts.bench.ours', *arguments, settings.config]
    else:
        extra = extra_of(contender)
        command = [settings.pythons[extra], '-m', f'scripts.bench.{extra}', *arguments]
    return Worker(command)


def is_ours(contender: str) -> bool:
    """True for the contenders of this project."""
    return contender.startswith('ours')


def extra_of(contender: str) -> str:
    """Extra of pyproject.toml that a peer needs; its worker is scripts/bench/EXTRA.py."""
    return 'tunix' if contender == 'tunix' else 'peers'


def measure(case: Case, settings: BenchSettings) -> list[dict[str, Any]]:
    """Measures a case; returns one result row per contender.

    Peers that cannot start are skipped, with a message on stderr.
    """
    names = [n for n in CONTENDERS[case.work] if is_ours(n) or extra_of(n) in settings.pythons]
    workers: dict[str, Worker] = {}
    with contextlib.ExitStack() as stack:
        for name in ('machine', *names):
            try:
                workers[name] = start_worker(name, case, settings)
            except RuntimeError as error:
                if name == 'machine' or is_ours(name):
                    raise
                print(f'{case.name}: {name} is skipped: {error}', file=sys.stderr)
            else:
                stack.callback(workers[name].stop)
        order = list(workers)
        answers: dict[str, list[dict]] = {name: [] for name in order}
        for _ in range(settings.rounds):
            for name in order:
                answers[name].append(workers[name].run())
            order = [*order[1:], order[0]]  # so that the first contender of a round changes
    machine = Machine(
        *(statistics.median(a[k] for a in answers['machine']) for k in ('flops', 'bandwidth'))
    )
    bound = bound_seconds(case, load_settings(settings.config, case.model).model, machine)
    return [
        {'case': case.name, 'work': case.work, 'size': case.size, 'contender': name}
        | summary(answers[name], answers['ours'], first=workers[name].first, bound=bound)
        | {'machine': machine._asdict()}
        for name in workers
        if name != 'machine'
    ]


def summary(
    answers: Sequence[dict], ours: Sequence[dict], *, first: dict, bound: float
) -> dict[str, Any]:
    """Result row of a contender.

    `times_ours` is the median of each round's ratio, so that a machine that is busy for a while
    slows both sides of a ratio.
    """
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
    """Returns the Python of .cache/EXTRA; creates the environment from pyproject.toml if needed."""
    folder = build.ROOT / '.cache' / extra
    python = folder / 'bin' / 'python'
    if not python.exists():
        project = tomllib.loads((build.ROOT / 'pyproject.toml').read_text())
        packages = project['project']['optional-dependencies'][extra]
        print(f'making {folder} with {packages}')
        venv.create(folder, with_pip=True)
        subprocess.run([python, '-m', 'pip', 'install', '--quiet', *packages], check=True)
    return str(python)


def check_names(flag: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raises ValueError that lists the known names if one is unknown."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f'--{flag}={",".join(unknown)} is unknown; use {", ".join(known)}')


def environment_facts(settings: BenchSettings) -> dict[str, Any]:
    """Machine, software and load of the measurement."""
    return {
        'platform': platform.platform(),
        'backend': jax.default_backend(),
        'device': jax.devices()[0].device_kind,
        'clock': settings.clock,
        'cores': len(os.sched_getaffinity(0)),
        'load': os.getloadavg(),
        'jax': jax.__version__,
    }


def run_benchmark(settings: BenchSettings, folder: pathlib.Path) -> None:
    """Measures all cases and writes bench.json (after each case), bench.md and bench.png."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for size in settings.sizes:
        for case in (case for work in settings.works for case in cases(size, work)):
            measured = measure(case, settings)
            print(report.table(measured), flush=True)
            rows += measured
            results = {
                'about': environment_facts(settings),
                'rounds': settings.rounds,
                'rows': rows,
            }
            atomic.write_text(folder / 'bench.json', json.dumps(results, indent=1) + '\n')
    report.write(folder, results)
    print(f'written: {folder}/bench.json, bench.md, bench.png')
