"""Which paths a run can write to."""

import os
import re

from elenchus.data.files import atomic

_PATTERN = re.compile(r'[*?\[\\\ud800-\udfff]')


def check_name(workdir: str | os.PathLike) -> None:
    """Raises ValueError if a path has a character that Orbax and etils would misread.

    They search for files by patterns that begin with the path as it is: checkpoints below `a[1]`
    would be lost, and below `a?` those of other folders be read.
    """
    path = os.fspath(atomic.absolute(workdir))
    if wrong := _PATTERN.search(path):
        raise ValueError(
            f'--workdir={os.fspath(workdir)} is in {ascii(path)}, whose {ascii(wrong.group())} '
            f'checkpoints cannot have in their path; nearest: {_PATTERN.sub("_", path)}'
        )
