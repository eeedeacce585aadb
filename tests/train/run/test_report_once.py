"""The report of a finished run is drawn once: opening the run again takes no time for it."""

import os
import types

import pytest
from etils import epath

from elenchus.train.report import html_page
from elenchus.train.run import runner
from elenchus.train.run.directory import SUMMARY, RunDirectory


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of two finished stages, and the number of its reports."""
    directory = RunDirectory(epath.Path(tmp_path), '{}', ('base', 'actor'), part_size=1)
    for number, name in enumerate(('base', 'actor')):
        folder = directory.stage(name).path
        folder.mkdir(parents=True)
        (folder / SUMMARY).write_text('{}')
        os.utime(folder / SUMMARY, (number, number))
    written = []

    def write(workdir):
        written.append(workdir)
        (workdir / html_page.PAGE).write_text('')

    monkeypatch.setattr(runner, 'write_report', write)
    settings = types.SimpleNamespace(stages=('base', 'actor'))
    return types.SimpleNamespace(directory=directory, settings=settings), written


def test_it_is_written_where_there_is_none_and_again_after_another_stage(run, capsys):
    run, written = run
    for _ in range(2):
        runner.report(run)
        assert len(written) == 1
    page = run.directory.path / html_page.PAGE
    assert capsys.readouterr().out.splitlines() == [f'report: {page}'] * 2
    os.utime(page, (5, 5))
    runner.report(run)
    assert len(written) == 1
    os.utime(run.directory.stage('actor').path / SUMMARY, (5, 5))  # as late: it may be older
    runner.report(run)
    assert len(written) == 2


def test_it_is_written_where_a_stage_ended_after_it(run):
    run, written = run
    runner.report(run)
    os.utime(run.directory.path / html_page.PAGE, (0.5, 0.5))  # killed before the second report
    runner.report(run)
    assert len(written) == 2
