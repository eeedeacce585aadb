"""The command line of all scripts: parsing, one-line errors and exit codes.

Exit codes: 0 success; 1 something outside the program failed (a full disk, a loss that is not
finite); 2 a mistake in flags, config or data; 75 stopped on request, run the same command again.
"""

import contextlib
import pathlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import ml_collections
from absl import flags, logging
from etils import epath
from ml_collections.config_flags import config_flags

from elenchus.data.files import failures
from elenchus.data.text.printable import printable
from elenchus.train import distributed, output, preemption, watchdog
from elenchus.train.config import (
    compilation_cache,
    config_paths,
    remote_paths,
    script_flags,
    workdirs,
)
from elenchus.train.config.build import ROOT, nearest
from elenchus.train.early_end import early_end

PACKAGES = ('model', 'data', 'sampling', 'train', 'configs', 'scripts')

CONFIG_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What the code of a config file may raise while it is read."""

MAX_MESSAGE = 4000  # characters of an error's line

CONTINUES = 'files in the work directory are whole; once this is mended, run the same command again'


def join_processes() -> None:
    """Joins the processes that the flags or the cluster name; requests to stop end it early."""
    early_end.is_allowed = True
    watchdog.dump_stacks_on_signals(sys.__stderr__)
    values = flags.FLAGS
    distributed.initialize(
        coordinator=values.coordinator,
        num_processes=values.num_processes,
        process_id=values.process_id,
        detect=values.distributed,
    )


# Running


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the process with one line on stderr for the user's mistakes and failures from outside.

        with cli.one_line_errors():
            app.run(main, flags_parser=cli.parse_flags)

    A ValueError from our own packages exits with code 2. Failures from outside (a full disk, a
    deleted folder, processes that disagree, a loss that is not finite) exit with code 1. A
    ValueError from a library is a fault and keeps its traceback; --verbosity=1 shows all of them.
    """
    try:
        with output.kept(), _one_line():
            yield
    except preemption.Preempted:
        early_end.end_saved()
        raise


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if not _is_ours(error):
            raise
        _fail(str(error), error)
    except (FloatingPointError, RuntimeError) as error:
        if not _is_ours(error):
            raise
        _fail(str(error), error, code=1)
    except OSError as error:
        if error.errno not in failures.OUTSIDE:
            raise
        _fail(f'{failures.describe(error)}; {CONTINUES}', error, code=1)


def one_line(message: str) -> str:
    """Returns a message as one line that only prints: names in it may come from strangers."""
    line = printable(' '.join(message.split()))
    return line if len(line) <= MAX_MESSAGE else f'{line[:MAX_MESSAGE]} ...'


def _fail(message: str, error: BaseException | None = None, *, code: int = 2) -> NoReturn:
    if error is not None:
        logging.debug('The error below, with its traceback:', exc_info=error)
    print('error:', one_line(message), file=sys.stderr)
    sys.exit(code)


def _is_ours(error: BaseException) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    path, root = pathlib.Path(frame.f_code.co_filename).resolve(), ROOT.resolve()
    return path.is_relative_to(root) and path.relative_to(root).parts[0] in PACKAGES


# Parsing


def parse_only_flags(argv: list[str]) -> list[str]:
    """Parses as `parse_flags` the command line of a script that takes flags and nothing else."""
    rest = parse_flags(argv)
    if len(rest) > 1:
        _fail(f'unexpected argument {rest[1]!r}; flags start with --')
    return rest


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line for `app.run`; a mistake in it exits with one line and code 2.

    Define config flags without a default: `config_flags.DEFINE_config_file('config')`.
    """
    argv = config_paths.locate(argv, names=_config_names())
    try:
        rest = flags.FLAGS(argv)
        for name in _config_names():
            _check_readable(name, argv)
            if len(rest) > 1:
                _fail(f'unexpected argument {rest[1]!r}; flags start with --')
    except flags.IllegalFlagValueError as error:
        _fail(_last_line(str(error)))
    except flags.Error as error:
        _fail(str(error))
    except CONFIG_ERRORS as error:
        for name in _config_names():
            _check_config_file(name, argv, error)
            if isinstance(error, (AttributeError, LookupError)):  # of an override
                _check_overrides(name, argv)
        raise
    try:
        remote_paths.check_flags(flags.FLAGS.flag_values_dict() | {'': rest[1:]})
    except ValueError as error:
        _fail(str(error).removeprefix('--='))
    compilation_cache.turn_on(script_flags.COMPILATION_CACHE.value)
    if not flags.FLAGS['verbosity'].present:
        logging.set_verbosity(logging.FATAL)  # hides notes of libraries
    return rest


def named_folders(arguments: Sequence[str], workdir: str | None, *, most: int = 1) -> list[str]:
    """Returns the folders of runs that a command line names: --workdir, then its other words.

    Raises ValueError if there is none, or more than `most`.
    """
    folders = [word for word in (workdir, *arguments[1:]) if word]
    if not folders:
        raise ValueError('WORKDIR is missing; name the folder of a run, such as runs/lab')
    if len(folders) > most:
        raise ValueError(f'unexpected argument {folders[most]!r}; name {most} at most')
    return folders


def checked_workdir(workdir: str | None, *, of: str) -> epath.Path:
    """Returns the path of --workdir. Raises ValueError if it is missing, a file, or misnamed."""
    if not workdir:
        raise ValueError(
            f'--workdir is missing; set it to the folder of the {of}, such as runs/lab'
        )
    if epath.Path(workdir).is_file():
        raise ValueError(f'--workdir={workdir} is a file; use a folder')
    return workdirs.checked(workdir)


def _config_names() -> list[str]:
    parsers = {name: flags.FLAGS[name].parser for name in flags.FLAGS}
    return [n for n, p in parsers.items() if isinstance(p, config_flags.ConfigFileFlagParser)]


def _last_line(message: str) -> str:
    """Returns flag and cause if ml_collections put a whole traceback into the message."""
    head, mark, trace = message.partition('Error whilst parsing config file:')
    return head + trace.strip().splitlines()[-1] if mark else message


def _argument(name: str, argv: list[str]) -> str | None:
    for i, argument in enumerate(argv):
        flag, equals, value = argument.lstrip('-').partition('=')
        if argument.startswith('-') and flag == name:
            return value if equals else ''.join(argv[i + 1 : i + 2])
    return None


def _check_readable(name: str, argv: list[str]) -> None:
    try:
        getattr(flags.FLAGS[name].value, 'is_locked', None)  # raises why it could not be read
    except OSError as error:
        path = pathlib.Path((_argument(name, argv) or '').partition(':')[0])
        siblings = [str(p) for p in sorted(path.parent.glob('*.py')) if p.stem != '__init__']
        reason = error.strerror or error
        hint = f'; did you mean {nearest(path, siblings)}?' if siblings else ''
        _fail(f'cannot read --{name}={path} ({reason}){hint}')


def _check_config_file(name: str, argv: list[str], error: BaseException) -> None:
    """Fails with one line if an error comes from within the config file, or if it is none."""
    path = pathlib.Path((_argument(name, argv) or '').partition(':')[0]).resolve()
    lines = [
        number
        for frame, number in traceback.walk_tb(error.__traceback__)
        if pathlib.Path(frame.f_code.co_filename).resolve() == path
    ]
    if isinstance(error, SyntaxError) and pathlib.Path(error.filename or path).resolve() == path:
        lines = [error.lineno or 1]
    elif isinstance(error, AttributeError) and error.name == 'get_config':
        _fail(f'--{name}={_argument(name, argv)} has no function get_config, so it is no config '
              'file; use one such as configs/lab.py', error)  # fmt: skip
    if lines:
        _fail(
            f'--{name}={_argument(name, argv)}, line {lines[-1]}: {type(error).__name__}: {error}; '
            'use a Python file whose function get_config returns a ConfigDict',
            error,
        )


def _check_overrides(name: str, argv: list[str]) -> None:
    """Fails with one line if an override names a field that the config lacks."""
    path = _argument(name, argv)
    config = flags.FLAGS[name].parser.parse(path) if path else None
    if path and not isinstance(config, ml_collections.ConfigDict):
        _fail(f'--{name}={path}: get_config returned {type(config).__name__}, not a ConfigDict')
    for argument in argv:
        flag = argument.lstrip('-').partition('=')[0]
        if config is not None and argument.startswith('-') and flag.startswith(f'{name}.'):
            _check_path(config, flag.split('.'))


def _check_path(config: Any, parts: list[str]) -> None:
    path = parts[0]
    for part in parts[1:]:
        if not isinstance(config, ml_collections.ConfigDict):
            return
        field, index, _ = part.partition('[')
        if field not in config:
            close = nearest(field, config)
            _fail(f'unknown field --{path}.{field}; did you mean --{path}.{close}?')
        if index and isinstance(config[field], (tuple, list)):
            value = f'"{tuple(config[field])}"'
            _fail(f'--{path}.{part}: it is set as a whole, such as --{path}.{field}={value}')
        if index:
            _fail(f'--{path}.{part}: {field} has no index; set --{path}.{field}')
        config, path = config[part], f'{path}.{part}'
