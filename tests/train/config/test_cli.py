"""The command line: every mistake is one line that names the flag or field."""

import pytest

CONFIG = """
import ml_collections

def get_config(arg='plain'):
    if arg != 'plain':
        raise ValueError(f'no variant {arg!r}')
    return ml_collections.ConfigDict(
        {'train': {'rate': 0.1, 'schedule': 'linear', 'steps': 3}, 'seed': 0, 'mesh': (1, 2)})
"""
SCRIPT = """
import dataclasses, pathlib
from absl import app, flags
from ml_collections import config_flags
from elenchus.train.config import build, cli

CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
OUTSIDE = flags.DEFINE_bool('outside', False, 'Write where nothing is.')
FAULT = flags.DEFINE_bool('fault', False, 'Raise in a library.')

@dataclasses.dataclass(frozen=True)
class Train:
    rate: float
    steps: int

def main(argv):
    if FAULT.value:
        import json
        json.loads('[')
    if OUTSIDE.value:
        open('/nowhere/at/all', 'w')
    build.build(Train, CONFIG.value.train, 'config.train')
    pathlib.Path('written').touch()

with cli.one_line_errors():
    app.run(main, flags_parser=cli.parse_flags)
"""
MISTAKES = [
    (('--config=small.py', '--config.train.stepz=1'), ('--config.train.stepz', '.steps')),
    (('--config', 'small.py', '--config.trein.steps=1'), ('--config.trein', '--config.train')),
    (('--config=small.py', '--config.train.steps=x'), ('--config.train.steps=x', 'int')),
    (('--config=smal.py',), ('--config=smal.py', 'did you mean small.py?')),
    (('--config=small.py', '--config.mesh[0]=2'), ('--config.mesh[0]: it is set as a whole',)),
    (('--config=small.py', '--config.mesh[9]=2'), ('--config.mesh="(1, 2)"',)),
    (('--config=small.py', '--config.mash[0]=2'), ('--config.mash', '--config.mesh')),
    (('--config=small.py', '--config.train[0]=2'), ('train has no index',)),
    (('--config=small.py:plian',), ('--config=small.py:plian', "no variant 'plian'")),
    (('--confg=small.py',), ('confg',)),
    (('--config=small.py', 'config.seed=5'), ("unexpected argument 'config.seed=5'",)),
    (('--config=small.py',), ('unknown field config.train.schedule of Train', 'did you mean')),
]
"""Arguments, and words of the error."""
UNREADABLE = {  # a file that is no config -> its bytes, and words of the error
    'README.md': (b'# Title\n\nSome prose here.\n', ('README.md, line 3: SyntaxError',)),
    'open.py': (b'x = (\n', ('open.py, line 1: SyntaxError',)),
    'imports.py': (b'\nimport nothing_of_this_name\n', ('line 2', "'nothing_of_this_name'")),
    'raises.py': (b'raise RuntimeError("boom")\n', ('line 1: RuntimeError: boom',)),
    'lacks.py': (b'def get_config():\n    return lab.get_config()\n', ('line 2: NameError',)),
    'keys.py': (b'def get_config():\n    return {}["x"]\n', ("line 2: KeyError: 'x'",)),
    'utf16.py': (b'\xff\xfea\0', ('utf16.py', 'Error: ')),  # the words are those of the Python
    'data.json': (b'{}', ('data.json has no function get_config',)),
    'empty.py': (b'', ('empty.py has no function get_config',)),
}
MISTAKES += [
    ((f'--config={name}', *override), words)
    for name, (_, words) in UNREADABLE.items()
    for override in ((), ('--config.seed=1',))
]
UNREADABLE['none.py'] = (b'def get_config():\n    return None\n', ())
FAULTS = {
    'library': ('--config=small.py', '--fault'),
    'disk': ('--config=small.py', '--outside'),
    'none': ('--config=none.py', '--config.seed=1'),
}


@pytest.fixture(scope='module')
def results(tmp_path_factory, fork):
    """A small script with an absl main on a small config: arguments -> (its folder, result)."""
    cases = [arguments for arguments, _ in MISTAKES] + list(FAULTS.values())
    runs = [(tmp_path_factory.mktemp('script'), arguments) for arguments in cases]
    for folder, _ in runs:
        (folder / 'small.py').write_text(CONFIG)
        (folder / 'script.py').write_text(SCRIPT)
        for name, (content, _) in UNREADABLE.items():
            (folder / name).write_bytes(content)
    ended = [fork('script.py', folder, arguments) for folder, arguments in runs]
    folders = [folder for folder, _ in runs]
    return dict(zip(cases, zip(folders, ended, strict=True), strict=True))


@pytest.mark.parametrize(('arguments', 'words'), MISTAKES)
def test_a_mistake_on_the_command_line_is_one_line_that_names_it(results, arguments, words):
    folder, (code, errors, _) = results[arguments]
    assert code == 2, errors
    assert errors.startswith('error: ') and errors.count('\n') == 1
    assert all(word in errors for word in words), errors
    assert not (folder / 'written').exists()


def test_a_fault_of_a_library_keeps_its_traceback(results):
    code, errors, _ = results[FAULTS['library']][1]
    assert code == 1
    assert 'Traceback' in errors and 'JSONDecodeError' in errors


def test_a_file_system_error_is_one_line_and_the_same_command_continues(results):
    code, errors, _ = results[FAULTS['disk']][1]
    assert code == 1 and errors.count('\n') == 1
    for words in ('error: ', "'/nowhere/at/all'", 'run the same command again'):
        assert words in errors


def test_a_config_file_that_returns_nothing_is_named_below_the_library_s_warning(results):
    code, errors, _ = results[FAULTS['none']][1]
    assert code == 2 and 'Traceback' not in errors
    assert errors.splitlines()[-1] == (
        'error: --config=none.py: get_config returned NoneType, not a ConfigDict'
    )
