"""Console scripts of the installed package: `elenchus-run` is `python -m elenchus.scripts.run`."""

import runpy


def run() -> None:
    """Runs scripts.run."""
    _run('run')


def stage() -> None:
    """Runs scripts.stage."""
    _run('stage')


def study() -> None:
    """Runs scripts.study."""
    _run('study')


def report() -> None:
    """Runs scripts.report."""
    _run('report')


def convert() -> None:
    """Runs scripts.convert."""
    _run('convert')


def merge() -> None:
    """Runs scripts.merge."""
    _run('merge')


def _run(name: str) -> None:
    runpy.run_module(f'elenchus.scripts.{name}', run_name='__main__', alter_sys=True)
