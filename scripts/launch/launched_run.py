"""A run that a launcher starts: its arguments, its sources and its key.

The key of a run is its work directory; the name of the launch says where it runs. The commit is not
part of the key: after a commit, the same `keep` continues the run with the sources and arguments
that it began with; `--update=yes` replaces them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pathlib
import re
import shutil
import tarfile
import tempfile
import typing
import weakref
import zlib

from elenchus.scripts.launch import sources
from elenchus.scripts.launch.cloud import Refused
from elenchus.scripts.launch.commands import say
from elenchus.scripts.launch.ledger import Ledger
from elenchus.scripts.launch.options import UsageError

ROOT = pathlib.Path(__file__).resolve().parents[2]
ANY = '-'
"""Key of a command that does not say which run it means."""


def value_of(run: typing.Sequence[str], name: str) -> str:
    """Returns the value of a flag among the arguments of scripts.run, '' without one."""
    value = ''
    for i, word in enumerate(run):
        if word in (f'--{name}', f'-{name}') and i + 1 < len(run):
            value = run[i + 1]
        elif word.startswith((f'--{name}=', f'-{name}=')):
            value = word.partition('=')[2]
    return value


def check_workdir(run: typing.Sequence[str]) -> None:
    """Checks that all hosts will find the work directory.

    Raises:
        UsageError: It is missing, or relative to each host's own disk.
    """
    workdir = value_of(run, 'workdir')
    if not workdir.startswith(('gs://', '/')):
        raise UsageError(
            f'--workdir={workdir} must be in a bucket, gs://BUCKET/FOLDER, '
            'or an absolute path that all hosts share'
        )


def _digest(*words: str) -> str:
    return hashlib.sha256('\0'.join(words).encode()).hexdigest()


def key_of(run: typing.Sequence[str]) -> str:
    """Returns the key that identifies a run on its machines: a function of its work directory."""
    return _digest(value_of(run, 'workdir').rstrip('/'))[:12]


def version_of(commit: str, run: typing.Sequence[str]) -> str:
    """Returns one word that identifies sources and arguments: COMMIT-HASH."""
    return f'{commit}-{_digest(*run)[:8]}'


def commit_of(version: str) -> str:
    """Returns `commit X` for a version; '' if it has none."""
    commit = version.rpartition('-')[0]
    return f'commit {commit}' if commit else ''


class LaunchedRun:
    """The run of a command line, or the run that this launch began with.

    Attributes:
        arguments: Arguments of scripts.run.
        key: Identifies the run; `ANY` before `prepare`.
        sources: The archive that is shipped; None before `prepare`.
    """

    def __init__(self, arguments: typing.Sequence[str], ledger: Ledger, *, tree: str, update: bool):
        self.arguments = tuple(arguments)
        self.key = ANY
        self.sources: sources.Sources | None = None
        self._ledger = ledger
        self._tree = tree
        self._update = update
        self._missing = ''
        self._said = ''
        self._folder: pathlib.Path | None = None

    @property
    def version(self) -> str:
        """Sources and arguments in one word, '' before `prepare`."""
        return version_of(self.sources.version, self.arguments) if self.sources else ''

    @property
    def workdir(self) -> str:
        """The work directory, '' if the command line has none."""
        return value_of(self.arguments, 'workdir')

    @property
    def scratch(self) -> pathlib.Path:
        """A temporary folder, deleted with this object."""
        if self._folder is None:
            self._folder = pathlib.Path(tempfile.mkdtemp(prefix='elenchus-'))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder

    def prepare(self, *, image: str = '') -> None:
        """Checks the arguments and packs the sources, or takes those with which the launch began.

        Args:
            image: Container image that has the sources, so that none are packed; empty: none.

        Raises:
            UsageError: No arguments, no shared work directory, or no config among the sources.
        """
        if not self.arguments:
            raise UsageError('the arguments of scripts.run are required after --')
        check_workdir(self.arguments)
        self.key = key_of(self.arguments)
        began = None if self._update or self._ledger.read().ending else self._ledger.read_run()
        if image:
            name = re.sub('[^A-Za-z0-9.]', '.', image)
            self.sources = sources.Sources(pathlib.Path(), name, frozenset(), '')
        elif began is not None and key_of(began[1]) == self.key:
            self._go_on(*began)
        else:
            self.pack()

    def pack(self) -> None:
        """Packs the sources of the clone, with the config among them, and prints their version."""
        packed = sources.pack(ROOT, self.scratch, tree=self._tree)
        if packed.warning:
            say(f'warning: {packed.warning}')
        say(f'ships commit {packed.version}')
        sources.check_config(self.arguments, ROOT, packed)
        self.sources = packed

    def remember(self) -> None:
        """Stores the run for later commands of this launch."""
        if self.sources.path.is_file():
            self._ledger.write_run(self.version, self.arguments, self.sources.path)

    def is_replaced_by_this(self, version: str) -> bool:
        """Returns whether this run replaces a live one of this version (`--update=yes`).

        If not, and the versions differ, prints that, and later starts use the sources of the live
        run, if this clone has the commit.
        """
        if not self.sources or version in ('', ANY, self.version):
            return False
        if self._update:
            return True
        if version != self._said:
            self._said = version
            self._take(version)
        return False

    def is_news_after(self, version: str) -> bool:
        """Returns whether a run that completed with this version is to be started again.

        It is if the arguments differ (more stages), or with `--update=yes` also the sources.
        """
        if not self.sources or version in ('', ANY, self.version):
            return False
        mine = version_of(version.rpartition('-')[0], self.arguments)
        return self._update or mine != version

    def check_startable(self) -> None:
        """Checks that the sources of the run are here.

        Raises:
            Refused: The run has other sources, which are not here.
        """
        if self._missing:
            raise Refused(f'{self._missing} cannot be started from here; --update=yes replaces it')

    def _go_on(self, version: str, arguments: tuple[str, ...], archive: pathlib.Path) -> None:
        commit = version.rpartition('-')[0]
        self.sources = self._read(archive, commit)
        differs = [] if arguments == self.arguments else ['with other arguments']
        head = sources.read_version(ROOT, tree=self._tree)
        if head not in ('', commit):
            differs.append(f'while the clone is at {head}')
        self.arguments = arguments
        if differs:
            text = ' and '.join(differs)
            say(f'this launch began with commit {commit}, {text}; --update=yes replaces its run')
            self._said = self.version

    def _read(self, archive: pathlib.Path, commit: str) -> sources.Sources:
        """Returns the stored sources; damaged ones are packed again if the clone has the commit.

        Raises:
            UsageError: They are damaged, and the clone lacks the commit.
        """
        try:
            with gzip.open(archive) as file:
                text = file.read()  # to its end, where the checksum is
            with tarfile.open(fileobj=io.BytesIO(text)) as file:
                return sources.Sources(archive, commit, frozenset(file.getnames()), '')
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            packed = sources.pack_commit(ROOT, self.scratch, commit)
            if packed is None:
                raise UsageError(
                    f'the kept sources {archive} are damaged ({error}), and this clone has no '
                    f'commit {commit}; --update=yes replaces the run by what the clone has'
                ) from None
            say(f'warning: {archive} is damaged ({error}): commit {commit} is packed again')
            return packed

    def _take(self, version: str) -> None:
        """Uses the sources that already run, so that a restart does not change them."""
        commit, _, arguments = version.rpartition('-')
        mine = version_of(commit, self.arguments) == version
        what = f'commit {commit}' + ('' if mine else ' with other arguments')
        say(f'{what} runs there, and goes on; --update=yes replaces it by {self.sources.version}')
        taken = sources.pack_commit(ROOT, self.scratch, commit) if mine else None
        if taken is None:
            self._missing = what
        else:
            self.sources = taken
