"""Ledger: stores the progress of a launch on this machine, and locks it for one launcher.

There is one JSON file per slice or job in $ELENCHUS_LAUNCHES (default ~/.elenchus/launches). With
it an interrupted `keep` continues with the same counts and budget, and `cost` adds up the bill.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import typing

from elenchus.scripts.launch.commands import say
from elenchus.scripts.launch.options import UsageError
from elenchus.scripts.launch.states import Progress, State

FOLDER = 'ELENCHUS_LAUNCHES'
CANNOT_WRITE = f'the ledger of launches cannot be written (${FOLDER} names another folder)'
FORMS = {
    'State': str,
    'bool': bool,
    'int': int,
    'str': str,
    'float': (int, float),
    'float | None': (int, float, type(None)),
}
"""Type of a field -> type of its JSON value."""
LONGEST = 100
"""Bytes of a file name; longer names are cut and end with a hash. File systems allow 255."""


def _folder() -> pathlib.Path:
    return pathlib.Path(os.environ.get(FOLDER) or '~/.elenchus/launches').expanduser()


def _file_name(name: str) -> str:
    """Returns the name of a file for any text."""
    safe = ''.join(c if c.isalnum() or c in '-_.' else '_' for c in name) or '_'
    if len(safe.encode()) <= LONGEST and safe.strip('.'):
        return safe
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f'{safe.encode()[: LONGEST - 20].decode(errors="ignore")}-{digest}'


def _progress_of(stored: dict) -> Progress:
    """Returns the progress stored in a file; fields of other versions are ignored.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: The file is damaged.
    """
    fields = {}
    for field in dataclasses.fields(Progress):
        if field.name in stored:
            value = stored[field.name]
            if not isinstance(value, FORMS[str(field.type)]):
                raise TypeError(field.name)
            fields[field.name] = value
    return Progress(**{**fields, 'state': State(stored['state'])})


class Ledger:
    """Progress of the launch of a name on a cloud.

    Attributes:
        path: The file.
    """

    def __init__(self, *names: str):
        safe = [_file_name(name) for name in names]
        self.path = _folder().joinpath(*safe[:-1], f'{safe[-1]}.json')

    def is_live(self) -> bool:
        """Returns whether the launch has begun and not ended."""
        progress = self.read() if self.path.is_file() else Progress()
        return progress.state is not State.ABSENT and not progress.ending

    def has_others(self) -> bool:
        """Returns whether there is a ledger of this zone and name under another project."""
        *_, project, zone, name = self.path.parts
        folders = self.path.parents[2]
        others = folders.iterdir() if folders.is_dir() else ()
        return any((o / zone / name).is_file() for o in others if o.name != project)

    def read(self) -> Progress:
        """Returns the stored progress, or a new one if there is none.

        A damaged file is put aside with a warning: its counts and its bill are lost.

        Raises:
            UsageError: The file cannot be read, so there may be a launch.
        """
        try:
            return _progress_of(json.loads(self.path.read_text(encoding='utf-8')))
        except FileNotFoundError:
            return Progress()
        except (ValueError, KeyError, TypeError, AttributeError):
            with contextlib.suppress(OSError):
                os.replace(self.path, self.path.with_suffix('.damaged'))
            say(f'warning: {self.path} is damaged: bill and counts of this launch begin at 0')
            return Progress()
        except OSError as error:
            raise UsageError(f'the ledger of launches cannot be read: {error}') from None

    def write(self, progress: Progress) -> None:
        """Stores the progress, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fields = {**dataclasses.asdict(progress), 'state': progress.state.value}
        new = self.path.with_suffix('.new')
        with open(new, 'w', encoding='utf-8') as file:
            json.dump(fields, file, indent=1)
            file.flush()
            os.fsync(file.fileno())  # otherwise it may be empty after a power cut
        os.replace(new, self.path)

    def elsewhere(self) -> typing.Iterator[Ledger]:
        """Yields the ledgers of all launches of this machine, on any cloud, that have not ended."""
        for path in sorted(_folder().rglob('*.json')):
            other = Ledger.__new__(Ledger)
            other.path = path
            if path != self.path and other.is_live():
                yield other

    @property
    def place(self) -> str:
        """Describes where the launch is: cloud, project or `_`, zone or cluster or hosts, name."""
        return ' '.join(self.path.relative_to(_folder()).with_suffix('').parts)

    def read_run(self) -> tuple[str, tuple[str, ...], pathlib.Path] | None:
        """Returns (version, arguments, sources) of the launch's run; None before it was stored."""
        try:
            fields = json.loads(self.path.with_suffix('.run').read_text(encoding='utf-8'))
            version, run = str(fields['version']), tuple(str(word) for word in fields['run'])
            archive = self.path.parent / str(fields['archive'])
            return (version, run, archive) if archive.is_file() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_run(self, version: str, run: typing.Sequence[str], archive: pathlib.Path) -> None:
        """Stores the run of this launch, so that the same sources start again after a commit."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        path = self.path.with_suffix('.tar.gz')
        if archive != path:
            new = path.with_suffix('.new')
            shutil.copyfile(archive, new)
            os.replace(new, path)
        fields = {'version': version, 'run': list(run), 'archive': path.name}
        new = self.path.with_suffix('.run.new')
        new.write_text(json.dumps(fields), encoding='utf-8')
        os.replace(new, self.path.with_suffix('.run'))

    def forget_run(self) -> None:
        """Removes the run of a former launch, so that the next takes the sources of the clone."""
        self.path.with_suffix('.run').unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> typing.Iterator[None]:
        """Holds the launch for one launcher of this machine.

        Raises:
            UsageError: Another launcher holds it.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            opened = open(self.path.with_suffix('.lock'), 'a+', encoding='utf-8')  # noqa: SIM115
        except OSError as error:
            raise UsageError(f'{CANNOT_WRITE}: {error}') from None
        with opened as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise UsageError(
                    f'process {file.read().strip()} on this machine keeps {self.path.stem} already'
                ) from None
            except OSError:
                pass  # the file system has no locks: the user must not start two launchers
            with contextlib.suppress(OSError):  # a full disk: the id only informs the user
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
            yield
