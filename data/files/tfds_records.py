"""Stores records of a dataclass as a prepared TFDS dataset; prepared_datasets.py reads it.

A field of type str, int or bool is a feature of that type; an optional field is a sequence of
length 0 or 1, and a tuple is a sequence. The files are array_record.
"""

import contextlib
import functools
import io
import os
import types
import typing
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging


class RecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base class of builders whose examples are `to_row(record)`.

    A subclass sets `RECORD` and `DESCRIPTION`. Metadata are class attributes, not package files.
    """

    VERSION = tfds.core.Version('1.0.0')
    RECORD: ClassVar[type]
    DESCRIPTION: ClassVar[str] = ''
    code_path = None  # TFDS would look for checksum and metadata files next to this module

    def _info(self) -> tfds.core.DatasetInfo:
        hints = typing.get_type_hints(self.RECORD)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            disable_shuffling=True,
            features=tfds.features.FeaturesDict({n: _feature(h) for n, h in hints.items()}),
        )


def to_row(record: Any) -> dict[str, Any]:
    """Returns a record as a TFDS example: an optional field becomes a list of length 0 or 1."""
    hints = typing.get_type_hints(type(record))
    row = {}
    for name, hint in hints.items():
        value = getattr(record, name)
        optional = typing.get_origin(hint) is types.UnionType
        row[name] = ([] if value is None else [value]) if optional else value
    return row


def prepare(
    builder: type[RecordBuilder], config: tfds.core.BuilderConfig, data_dir: str | os.PathLike
) -> RecordBuilder:
    """Writes the builder's files if they are missing, atomically; returns the builder."""
    make = functools.partial(builder, data_dir=os.fspath(data_dir), config=config)
    with quiet():
        prepared = make()
        try:
            prepared.download_and_prepare(
                file_format='array_record',
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
        except OSError:  # another process may have written the same files first
            prepared = make()
            if not prepared.is_prepared():
                raise
    return prepared


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the announcements, progress bars and warnings of TFDS."""
    verbosity = logging.get_verbosity()
    tfds.disable_progress_bar()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


_SCALARS = {str: tfds.features.Text, int: lambda: np.int32, bool: lambda: np.bool_}


def _feature(hint: Any) -> Any:
    scalar = _scalar(hint)
    return _SCALARS[hint]() if scalar is hint else tfds.features.Sequence(_SCALARS[scalar]())


def _scalar(hint: Any) -> type:
    """Returns the element type of a field: T of `T`, `T | None` and `tuple[T, ...]`."""
    return hint if hint in _SCALARS else typing.get_args(hint)[0]
