"""Which paths a run can write to."""

import os
import re

from etils import epath

from elenchus.data.files import atomic

_PATTERN = re.compile(r'[*?\[\\\ud800-\udfff]')


def checked(workdir: str | os.PathLike) -> epath.Path:
    """Returns a path. Raises ValueError if it has a character that Orbax and etils would misread.

    They search for files by patterns that begin with the path as it is: checkpoints below `a[1]`
    would be lost, and below `a?` those of other folders be read.
    """
    path = os.fspath(atomic.absolute(workdir))
    if wrong := _PATTERN.search(path):
        raise ValueError(
            f'--workdir={os.fspath(workdir)} is in {ascii(path)}, whose {ascii(wrong.group())} '
            f'checkpoints cannot have in their path; nearest: {_PATTERN.sub("_", path)}'
        )
    return epath.Path(workdir)
