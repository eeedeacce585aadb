"""The image: its targets, what a build leaves out, and the build that gke.sh orders."""

import dataclasses
import pathlib
import re
import shlex
import tarfile

import pytest

from elenchus.scripts.launch import gke, launched_run, sources
from elenchus.scripts.launch.commands import Commands
from tests.support import image_steps

ROOT = pathlib.Path(__file__).parents[3]
WORKER = ROOT / 'scripts/launch/worker.sh'
STAGES = image_steps.read_stages(image_steps.DOCKERFILE.read_text())
TARGETS = [name for name in STAGES if name != 'sources']


@pytest.mark.parametrize('target', TARGETS)
def test_a_target_installs_its_accelerator_into_the_folder_that_has_the_sources(target):
    steps = STAGES[target]
    (install,) = [step.text for step in steps if step.word == 'RUN']
    assert install.endswith(f' bash scripts/launch/worker.sh {target}')
    words = [step.word for step in steps]
    assert words.index('WORKDIR') < words.index('COPY') < words.index('RUN')
    cases = re.findall(r'^    ([\w| ]+)\) LOCKS', WORKER.read_text(), re.MULTILINE)
    assert target in ' | '.join(cases).split(' | ')


def test_the_targets_are_the_accelerators_that_there_are_locks_for():
    locks = {path.stem for path in (ROOT / 'scripts/locks').glob('*.lock')}
    assert set(TARGETS) == {'cpu'} | locks & {'tpu', 'cuda12', 'cuda13'}
    (field,) = [f for f in dataclasses.fields(gke.GkeOptions) if f.name == 'accelerator']
    assert set(field.metadata['choices']) - {''} == set(TARGETS) - {'cpu'}


@pytest.mark.parametrize(
    ('name', 'is_ignored'),
    [
        *(('scripts/setup.sh', False), ('requirements.lock', False), ('train/output.py', False)),
        *(('runs/lab/summary.json', True), ('.git/HEAD', True), ('tests/conftest.py', True)),
        *(('scripts/launch/.env', True), ('data/my_credentials.json', True), ('a/b/x.pem', True)),
        *(('configs/__pycache__/lab.pyc', True), ('data/lab/checkpoint/manifest', False)),
    ],
)
def test_what_an_image_does_not_contain(name, is_ignored):
    patterns = (ROOT / '.dockerignore').read_text().split()
    assert image_steps.is_ignored(name, patterns) is is_ignored


@pytest.mark.parametrize(
    ('flags', 'target'),
    [
        ({}, 'tpu'),
        ({'device': 'gpu', 'type': 'h100-mega-80gb-8'}, 'cuda13'),
        ({'device': 'gpu', 'type': 'l4-1', 'accelerator': 'cuda12'}, 'cuda12'),
    ],
)
def test_gke_builds_the_target_of_its_nodes_and_runs_that_image(
    flags, target, tmp_path, monkeypatch, capsys
):
    archive = tmp_path / 'sources.tar.gz'
    with tarfile.open(archive, 'w:gz') as file:
        file.add(image_steps.DOCKERFILE, 'scripts/launch/Dockerfile')
    options = gke.GkeOptions(name='n', cluster='c', zone='z', repository='r/elenchus', **flags)
    run = ('--config=configs/lab.py', '--workdir=gs://bucket/run')
    cloud = gke.Workload(options, run, Commands(dry_run=True))
    cloud.launched.key = launched_run.key_of(cloud.launched.arguments)
    monkeypatch.setattr(launched_run.LaunchedRun, 'scratch', tmp_path)
    cloud.launched.sources = sources.Sources(archive, 'abc+12', frozenset(), '')
    cloud.create()
    commands = map(shlex.split, capsys.readouterr().out.splitlines())
    build, submit = (words for words in commands if words[0] != 'kubectl')
    assert build[:3] == ['docker', 'buildx', 'build'] and f'--target={target}' in build
    image = f'r/elenchus:abc-12-{target}'
    assert f'--tag={image}' in build and f'--docker-image={image}' in submit
    assert target in STAGES
    (context,) = [word for word in build if not word.startswith('-') and '/' in word]
    assert f'--file={context}/scripts/launch/Dockerfile' in build
    assert f'/worker.sh {target} ' in ' '.join(submit)
