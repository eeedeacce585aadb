"""The commands of the documents: each is run or left out by a rule; the cheap ones run here."""

import os
import re
import runpy

import pytest

from elenchus.train.config import build, checks
from elenchus.train.config.run_settings import RunSettings
from tests.docs import doc_commands, run_docs
from tests.docs.doc_commands import File

COMMANDS = [
    entry
    for document in doc_commands.documents()
    for entry in doc_commands.read(document)
    if not isinstance(entry, File)
]
PRINTED = [c for c in COMMANDS if 'scripts/launch/' in c.text or c.text == 'elenchus --help']
"""Commands of less than a second: launchers that print, and the list of commands."""


CONFIGS = [
    entry
    for document in doc_commands.documents()
    for entry in doc_commands.read(document)
    if isinstance(entry, File) and entry.path.startswith('configs/')
]


@pytest.mark.parametrize('file', CONFIGS, ids=lambda file: f'{file.document}-{file.path}')
def test_a_config_that_a_document_shows_passes_the_checks(tmp_path, file):
    path = tmp_path / 'shown.py'
    path.write_text(file.text)
    config = runpy.run_path(str(path))['get_config']()
    checks.check_settings(build.build(RunSettings, config))


def test_documents_have_commands_and_files():
    assert len(COMMANDS) > 80 and len(PRINTED) > 6
    files = {
        entry.path
        for document in doc_commands.documents()
        for entry in doc_commands.read(document)
        if isinstance(entry, File)
    }
    assert {'make_problems.py', 'configs/mine.py', 'steps.jsonl', 'configs/from_trl.py'} <= files


def test_every_rule_has_a_command():
    used = {rule for command in COMMANDS for rule in doc_commands.matching(command.text)}
    assert not [rule.pattern for rule in doc_commands.RULES if rule not in used]


def test_few_commands_are_omitted_and_each_for_a_reason():
    planned = [doc_commands.plan(command) for command in COMMANDS]
    omitted = [p for p in planned if p.skip]
    assert len(omitted) < len(planned) / 4
    for plan in planned:
        assert set(plan.needs) <= set(doc_commands.FIXTURES)
        flags = re.findall(r'(--[\w.]+)', plan.text)
        assert plan.skip or not {f for f in flags if f == '--dry_run' and flags.count(f) > 1}


def test_guides_are_run_whole():
    """What a guide leaves out needs a machine or a library that a check has not."""
    for command in COMMANDS:
        skip = doc_commands.plan(command).skip
        if command.document.startswith('docs/guide/') and skip:
            assert skip.startswith(('the environment', 'needs ')), command


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    """A clone of HEAD."""
    data = os.environ.get('ELENCHUS_DATA', '')
    fresh = run_docs.Clone(tmp_path_factory.mktemp('docs'), data=data)
    (fresh.folder / 'problems').mkdir()
    (fresh.folder / 'problems/test.jsonl').write_text('{}\n')
    return fresh


@pytest.mark.parametrize('command', PRINTED, ids=lambda c: c.text[:60])
def test_commands_that_only_print(command, clone):
    outcome = run_docs.run_command(clone, doc_commands.plan(command))
    assert outcome.state == 'ran', outcome


@pytest.mark.slow
@pytest.mark.parametrize('document', doc_commands.documents())
def test_every_command_runs_in_a_fresh_clone(document, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / 'docs_clone'
    data = os.environ.get('ELENCHUS_DATA', '')
    outcomes = list(run_docs.run_document(run_docs.Clone(folder, data=data), document))
    assert not [outcome for outcome in outcomes if outcome.state == 'failed']
