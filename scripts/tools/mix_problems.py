r"""Writes train.jsonl and test.jsonl with problems of several published sets, split by a seed.

    python -m scripts.tools.mix_problems --out=problems/mine \
        --train=asdiv:1200,gsm8k:600 --test=asdiv:200,svamp:100,gsm8k:100

Sets without training problems (asdiv, svamp) are divided: what is tested is not trained on. A set
is read from the folder SETS/NAME if there is one, else it is downloaded.
"""

import pathlib

from absl import app, flags

from elenchus.data.files import atomic
from elenchus.data.problems import mixing, public_datasets
from elenchus.train.config import build, cli


def counts(entries: list[str], *, flag: str) -> dict[str, int]:
    """Returns set -> number of `asdiv:200,...`. Raises ValueError on anything else."""
    numbers: dict[str, int] = {}
    for entry in entries:
        name, _, number = entry.partition(':')
        if name not in public_datasets.SETS:
            near = build.nearest(name, public_datasets.SETS)
            raise ValueError(f'--{flag}={entry}: unknown set {name!r}; nearest: {near!r}')
        if not number.isdecimal() or not int(number):
            raise ValueError(f'--{flag}={entry}: use NAME:NUMBER, as in {name}:200')
        if name in numbers:
            raise ValueError(f'--{flag} names {name!r} twice; leave one out')
        numbers[name] = int(number)
    return numbers


def folders_of(sets: str) -> dict[str, str]:
    """Returns set -> its folder in `sets`, of those that have one; '' has none."""
    if sets and not pathlib.Path(sets).is_dir():
        raise ValueError(f'--sets={sets}: folder not found; without --sets all are downloaded')
    names = public_datasets.SETS if sets else ()
    folders = {name: pathlib.Path(sets, name) for name in names}
    return {name: str(folder) for name, folder in folders.items() if folder.is_dir()}


def main(_):
    """Writes the files and prints what there was to choose from."""
    values = flags.FLAGS
    out = pathlib.Path(values.out)
    mixture = mixing.mix(
        counts(values.train, flag='train'),
        counts(values.test, flag='test'),
        folders=folders_of(values.sets),
        data_dir=values.data_dir,
        limits=mixing.Limits(values.max_question, values.max_solution, values.computable),
        seed=values.seed,
    )
    for split, problems in {'train': mixture.train, 'test': mixture.test}.items():
        atomic.write_text(out / f'{split}.jsonl', mixing.to_jsonl(problems))
        print(f'{out / split}.jsonl: {len(problems)} problems')
    for name, number in mixture.available.items():
        print(f'{name}: {number} problems within the limits')


if __name__ == '__main__':
    flags.DEFINE_string('out', None, 'Folder of train.jsonl and test.jsonl.', required=True)
    flags.DEFINE_list('train', None, 'Training problems, NAME:NUMBER,...', required=True)
    flags.DEFINE_list('test', None, 'Test problems, NAME:NUMBER,...', required=True)
    flags.DEFINE_string('sets', '', 'Folder with a folder for each set; it is only read.')
    flags.DEFINE_string('data_dir', '.cache/data', 'Folder for prepared data sets.')
    flags.DEFINE_integer('max_question', 400, 'Longest question in characters.', lower_bound=1)
    flags.DEFINE_integer('max_solution', 280, 'Longest solution in characters.', lower_bound=1)
    flags.DEFINE_bool('computable', True, 'Leave out answers that no equation of theirs reaches.')
    flags.DEFINE_integer('seed', 0, 'Seed of the choice and the order.')
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_only_flags)
