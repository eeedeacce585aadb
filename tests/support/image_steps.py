"""Runs the steps of a target of the Dockerfile in the folder of a root file system, as root.

No daemon is needed: debootstrap or the like makes ROOT, which needs Python with venv and pip.

python -m tests.support.image_steps cpu ROOT elenchus run --config=lab:smoke --workdir=/tmp/run
python -m tests.support.image_steps --bind=/opt --env=PIP_FIND_LINKS=/opt/wheels cpu ROOT
"""

import argparse
import fnmatch
import pathlib
import re
import shlex
import subprocess
import tarfile
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
DOCKERFILE = ROOT / 'scripts/launch/Dockerfile'
MOUNTS = (
    'mount --make-rprivate / && mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev'
)


class Step(NamedTuple):
    """An instruction of a Dockerfile and what follows it."""

    word: str
    text: str


def read_stages(text: str) -> dict[str, list[Step]]:
    """Returns the steps of each target, those of the targets that it is made from first."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith('#')]
    stages: dict[str, list[Step]] = {}
    steps: list[Step] = []
    for line in lines:
        word, _, rest = line.partition(' ')
        if word == 'FROM':
            source, name = re.fullmatch(r'(\S+) AS (\S+)', rest).groups()
            steps = stages[name] = list(stages.get(source, ()))
        elif word != 'ARG':
            steps.append(Step(word, rest))
    return stages


def is_ignored(name: str, patterns: list[str]) -> bool:
    """Returns whether .dockerignore keeps a file out."""
    folders = [name, *map(str, pathlib.PurePosixPath(name).parents)]
    plain = [pattern.removeprefix('**/') for pattern in patterns]
    return any(
        fnmatch.fnmatch(folder if pattern == full else pathlib.PurePosixPath(folder).name, pattern)
        for folder in folders
        for full, pattern in zip(patterns, plain, strict=True)
    )


def copy_sources(target: pathlib.Path) -> int:
    """Copies the files of the last commit that .dockerignore lets through; returns their number."""
    patterns = (ROOT / '.dockerignore').read_text().split()
    with tempfile.TemporaryFile() as file:
        subprocess.run(['git', '-C', ROOT, 'archive', 'HEAD'], stdout=file, check=True)
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            members = [m for m in archive if not is_ignored(m.name, patterns)]
            archive.extractall(target, members, filter='data')
    return sum(member.isfile() for member in members)


def run_inside(root: pathlib.Path, command: str, *, folder: str, binds, variables) -> int:
    """Runs a shell command with `root` as its root; its mounts end with it."""
    mounts = [MOUNTS.format(root=shlex.quote(str(root)))]
    for bind in binds:
        inside = root / bind.lstrip('/')
        inside.mkdir(parents=True, exist_ok=True)
        mounts.append(f'mount --rbind {shlex.quote(bind)} {shlex.quote(str(inside))}')
    environment = [f'{name}={value}' for name, value in variables.items()]
    words = ['chroot', root, 'env', '-i', *environment, 'sh', '-c', f'cd {folder} && {command}']
    script = ' && '.join([*mounts, f'exec {shlex.join(map(str, words))}'])
    return subprocess.run(['unshare', '--mount', 'sh', '-c', script], check=False).returncode


def build(target: str, root: pathlib.Path, *, binds=(), variables=None, command='') -> int:
    """Runs all steps of a target, then `command` in the image; returns the last exit code."""
    folder = '/'
    path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
    values = {'PATH': path, 'HOME': '/root', **(variables or {})}
    for step in read_stages(DOCKERFILE.read_text())[target]:
        started, code, text = time.monotonic(), 0, step.text
        if step.word == 'ENV':
            for pair in shlex.split(text):
                name, _, value = pair.partition('=')
                values[name] = re.sub(r'\$\{(\w+)\}', lambda m: values.get(m[1], ''), value)
        elif step.word == 'WORKDIR':
            folder = text
            (root / folder.lstrip('/')).mkdir(parents=True, exist_ok=True)
        elif (step.word, text) == ('COPY', '. .'):
            text = f'{text} ({copy_sources(root / folder.lstrip("/"))} files)'
        elif step.word == 'RUN':
            text = re.sub(r'--mount=\S+ ', '', text)
            code = run_inside(root, text, folder=folder, binds=binds, variables=values)
        elif step.word != 'CMD':
            raise ValueError(f'unknown instruction {step.word}')
        print(
            f'{step.word} {text}: exit code {code}, {time.monotonic() - started:.0f} s', flush=True
        )
        if code:
            return code
    if command:
        return run_inside(root, command, folder=folder, binds=binds, variables=values)
    return 0


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('target', choices=sorted(read_stages(DOCKERFILE.read_text())))
    parser.add_argument('root', type=pathlib.Path)
    parser.add_argument('--bind', action='append', default=[], help='folder of this machine')
    parser.add_argument('--env', action='append', default=[], help='variable of the steps, A=B')
    parser.add_argument('command', nargs=argparse.REMAINDER, help='run in the image at the end')
    flags = parser.parse_args()
    variables = dict(pair.split('=', 1) for pair in flags.env)
    raise SystemExit(
        build(
            flags.target,
            flags.root.resolve(),
            binds=flags.bind,
            variables=variables,
            command=shlex.join(flags.command[flags.command[:1] == ['--'] :]),
        )
    )
