"""How the relative paths of a config are resolved: one rule for all fields."""

from etils import epath

from elenchus.data.files import atomic
from elenchus.train.config import build


def resolve(path: str) -> epath.Path:
    """Resolves the path of something that a run reads: problems, tokenizers, saved models.

    A relative path is looked up in the working directory first, then in the project's folder, which
    has the lab's checkpoint. If it is in neither, the path in the working directory is returned, as
    the place where it is missing. Absolute paths and paths in a bucket stay as they are. (What a
    run writes, --workdir and data.data_dir, is always relative to the working directory.)
    """
    resolved = epath.Path(path)
    if resolved.is_absolute() or atomic.is_remote(resolved) or resolved.exists():
        return resolved
    in_project = epath.Path(build.ROOT) / resolved
    return in_project if in_project.exists() else resolved
