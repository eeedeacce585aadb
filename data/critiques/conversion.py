"""Conversion of critique records between file formats."""

import difflib
import pathlib

from etils import epath

from elenchus.data.critiques import record_files

FORMATS = {'.jsonl': 'jsonl', '.json': 'released', '': 'dataset'}
"""File name ending -> format; a folder (no ending) is a prepared TFDS dataset."""


def convert(source: str, target: str, *, form: str | None) -> str:
    """Writes the records of one file in another format; returns a one-line summary.

    Args:
        form: a value of FORMATS; None selects it by the ending of `target`.

    Raises ValueError if the ending is unknown, or if source and target do not go together.
    """
    ending = pathlib.Path(target).suffix
    if form is None and ending not in FORMATS:
        near = difflib.get_close_matches(ending, FORMATS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f'{target}: unknown ending {ending!r}; use .jsonl, .json or none; nearest: {near!r}'
        )
    if epath.Path(source).resolve() == epath.Path(target).resolve():
        raise ValueError(f'{source} cannot be converted into itself')
    form = form or FORMATS[ending]
    if form == 'dataset':
        if epath.Path(source).is_dir():
            raise ValueError(f'{source} is already a dataset')
        target = record_files.prepare(source, data_dir=target)
        return f'{len(record_files.read_dataset(target))} records: {source} -> {target}'
    write = record_files.write_jsonl if form == 'jsonl' else record_files.write_released
    records = record_files.read(source)
    write(target, records)
    return f'{len(records)} records: {source} -> {target}'
