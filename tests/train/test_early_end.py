"""Requests to stop that end the process: while it imports, with nothing to save, after saving."""

import ast
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from elenchus.data.files import atomic
from elenchus.train import early_end as early_end_lib
from elenchus.train import early_signals, loop, preemption
from elenchus.train.checkpoints import model_store
from elenchus.train.config import cli
from elenchus.train.early_end import EarlyEnd
from elenchus.train.run import lease
from tests.support import multi_process, small_run

SCRIPTS = multi_process.ROOT / 'scripts'


class EndedError(Exception):
    """Raised where the process would end."""


@pytest.fixture
def early_end(monkeypatch):
    """An EarlyEnd in force, which is allowed and raises instead of ending the process."""
    end = EarlyEnd()
    end.is_allowed = True
    for module in (preemption, loop, model_store, cli):
        monkeypatch.setattr(module, 'early_end', end)

    def leave(code):
        assert code == 75
        raise EndedError

    monkeypatch.setattr(os, '_exit', leave)
    return end


# While packages are imported


def waiting(*, ignoring=()):
    """A process that has called `end_at_signals` and waits."""
    # The shell that runs the tests may ignore interrupts, and its children would too.
    code = 'import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); '
    code += ''.join(f'signal.signal({int(n)}, signal.SIG_IGN); ' for n in ignoring)
    code += 'from elenchus.train.early_signals import end_at_signals; end_at_signals(); '
    code += "print('ready', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, '-c', code], env=multi_process.environment(1),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == 'ready\n'
    return process


@pytest.mark.parametrize('number', early_signals.SIGNALS)
def test_a_process_that_imports_leaves_at_once_and_a_terminal_may_go(number):
    with waiting() as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 75
    assert errors == f'{number.name}: preempted before the run was opened\n'


def test_an_interrupt_that_is_ignored_stays_so():
    """`command &` in a script makes the shell's Ctrl-C not reach the command."""
    with waiting(ignoring=[signal.SIGINT]) as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 75


@pytest.mark.parametrize('name', ['run', 'stage', 'study'])
def test_a_script_listens_before_it_imports_what_is_slow(name):
    body = ast.parse((SCRIPTS / f'{name}.py').read_text()).body[1:]
    before = []
    for statement in body:
        if isinstance(statement, ast.If) and 'end_at_signals()' in ast.unparse(statement):
            break
        before.append(statement)
    else:
        raise AssertionError('never')
    for statement in before:
        modules = [getattr(statement, 'module', None) or statement.names[0].name]
        known = (*sys.stdlib_module_names, 'elenchus.train.early_signals')
        assert all(module.partition('.')[0] in known or module in known for module in modules)


def test_only_the_standard_library_is_imported_for_it():
    code = 'import elenchus.train.early_signals, sys; print(*sys.modules)'
    output = subprocess.run(
        [sys.executable, '-c', code], env=multi_process.environment(1), check=True,
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert not {'jax', 'numpy', 'absl', 'etils'} & {n.partition('.')[0] for n in output.split()}


# When a process need not be waited for


def requests_after(seconds, *, within_s=0.0, saved=None, saving=False, monkeypatch):
    """Requests that heard one `seconds` ago, in a process alone."""
    clock = [100.0]
    monkeypatch.setattr(preemption.time, 'monotonic', lambda: clock[0])
    requests = preemption.Requests()
    requests.within_s = within_s
    requests._hear()
    if saved is not None:
        clock[0] = 100.0 + saved
        requests.note_saved()
    requests._is_saving = saving
    clock[0] = 100.0 + seconds
    return requests


@pytest.mark.parametrize(
    ('steps', 'seconds', 'within_s', 'saved', 'saving', 'reason'),
    [
        (False, 0, 10, None, False, 'nothing new to save'),
        (True, 9, 10, None, False, None),
        (True, 11, 10, None, False, 'no place to save within 10 s'),
        (True, 1000, 0, None, False, None),  # 0: it waits
        (True, 1000, 10, None, True, None),  # saving takes as long as it takes
        (True, 14, 10, 9.5, False, None),
        (False, 14, 10, 9.5, False, None),
        (True, 15, 10, 9.5, False, 'saved'),  # something hangs after that
        (False, 15, 0, 9.5, False, 'saved'),
    ],
)
def test_when_the_main_thread_is_not_waited_for(
    early_end, monkeypatch, capsys, steps, seconds, within_s, saved, saving, reason
):
    early_end.has_steps = steps
    requests = requests_after(
        seconds, within_s=within_s, saved=saved, saving=saving, monkeypatch=monkeypatch
    )
    with pytest.raises(EndedError) if reason else contextlib.nullcontext():
        requests._end_if_due()
    output = capsys.readouterr().err
    assert (f'{reason}' in output and output.startswith('preempted: ')) if reason else not output


def test_only_a_run_ends_its_process(early_end):
    early_end.is_allowed = False
    early_end.end_saved()
    early_end.wait_if_ending()


def test_a_loop_has_steps_to_save_until_its_model_is_saved(early_end, tmp_path, monkeypatch):
    seen = []
    save_model = small_run.saved_models.save_model

    def save(*args, **options):
        seen.append(early_end.has_steps)
        save_model(*args, **options)
        early_end.has_steps = False

    monkeypatch.setattr(small_run.saved_models, 'save_model', save)
    small_run.run(tmp_path / 'run')
    assert seen == [True] and not early_end.has_steps


def test_what_is_saved_needs_no_saving(early_end, monkeypatch):
    early_end.has_steps = True
    monkeypatch.setattr(model_store.saved_models, 'save_model', lambda *_, **__: None)
    store = model_store.ModelStore(
        None, None, tokenizer_fingerprint='', quantize='none'
    )  # no model is looked at
    store.save('folder', None)
    assert not early_end.has_steps


# What is done before


def test_all_is_done_before_the_end_even_if_some_fails(early_end, monkeypatch, capsys):
    done = []

    def fail():
        done.append('fails')
        raise OSError('a bucket')

    with early_end.doing(lambda: done.append('first')), early_end.doing(fail):
        with early_end.doing(lambda: done.append('left')):
            pass
        with pytest.raises(EndedError):
            early_end.end('here')
    assert done == ['fails', 'first']
    assert capsys.readouterr().err == 'preempted: here; run the same command to continue\n'


def test_the_end_waits_for_nothing_long(early_end, monkeypatch):
    monkeypatch.setattr(early_end_lib, 'FINISH_S', 0.1)
    hanging, start = threading.Event(), time.monotonic()
    with early_end.doing(hanging.wait), pytest.raises(EndedError):
        early_end.end('here')
    hanging.set()
    assert time.monotonic() - start < 2


def test_a_file_that_is_being_written_is_waited_for(tmp_path):
    path, writes, going_on = tmp_path / 'a', threading.Event(), threading.Event()

    def write():
        with atomic.replaced(path) as temporary:
            temporary.write_text('one')
            writes.set()
            going_on.wait()

    assert atomic.wait_for_writes(0)
    writing = threading.Thread(target=write)
    writing.start()
    writes.wait()
    assert not atomic.wait_for_writes(0.01)
    going_on.set()
    assert atomic.wait_for_writes(10) and path.read_text() == 'one'
    writing.join()


def test_an_error_while_the_process_ends_is_no_failure(early_end, monkeypatch):
    """Other processes have left, so the collective of the main thread fails."""
    monkeypatch.setattr(early_end_lib.time, 'sleep', lambda _: None)
    early_end._ending.set()
    with pytest.raises(EndedError):
        early_end.wait_if_ending()


def test_a_run_that_has_saved_does_not_wait_for_the_interpreter(early_end, capsys):
    with pytest.raises(EndedError), cli.one_line_errors():
        raise preemption.Preempted('saved at step 3')
    assert 'saved at step 3' in capsys.readouterr().err
    early_end.is_allowed, early_end._ending = False, threading.Event()
    with pytest.raises(preemption.Preempted), cli.one_line_errors():
        raise preemption.Preempted('saved at step 3')


def test_a_lease_is_removed_before_the_end(early_end, monkeypatch, tmp_path):
    monkeypatch.setattr(lease, 'early_end', early_end)
    path = pathlib.Path(tmp_path / 'lease.json')
    with lease.leased(lease.DiskStore(path)):
        assert path.exists()
        with pytest.raises(EndedError):
            early_end.end('here')
        assert not path.exists()
