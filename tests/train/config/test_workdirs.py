"""Work directories whose names Orbax would misread are refused before anything is written."""

import pytest

from elenchus.configs import lab
from elenchus.train.config import cli, workdirs
from elenchus.train.run.session import open_run


@pytest.mark.parametrize('name', ['a[1]', 'a?', 'a*', 'a\\b', 'a[1]/runs', '\udcff', 'ü/x[', 'a[]'])
def test_a_path_that_is_a_pattern_is_one_line(tmp_path, name):
    for check in (
        lambda path: cli.checked_workdir(path, of='run'),
        lambda path: open_run(lab.get_config('smoke'), path, verifier=None),
    ):
        with pytest.raises(
            ValueError, match='checkpoints cannot have in their path; nearest: '
        ) as e:
            check(f'{tmp_path}/{name}')
        assert '\n' not in str(e.value) and not list(tmp_path.iterdir())
        nearest = str(e.value).rpartition('nearest: ')[2]
        workdirs.checked(nearest)


def test_the_folder_that_the_user_is_in_counts_too(tmp_path, monkeypatch):
    (tmp_path / 'my[1]').mkdir()
    monkeypatch.chdir(tmp_path / 'my[1]')
    with pytest.raises(ValueError, match='--workdir=runs/x is in .*nearest: .*/my_1]/runs/x'):
        workdirs.checked('runs/x')


@pytest.mark.parametrize(
    'name', ['a b', 'ü汉', '{x}', 'a#%20', "a'b", 'a:b', '~x', '-w', 'gs://b/x']
)
def test_other_names_pass(name):
    workdirs.checked(name)
