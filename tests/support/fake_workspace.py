"""What opening a workspace leaves, without models: for tests of stages that follow a script."""

import pathlib
from unittest import mock

import ml_collections

from elenchus.data.files import atomic
from elenchus.train.checkpoints import model_store
from elenchus.train.config import build, run_settings
from elenchus.train.run import workspace


def furnish(
    stand: workspace.Workspace, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> workspace.Workspace:
    """Gives it a run's settings and a work directory that has been entered; returns it."""
    atomic.write_text(workdir / 'config.json', build.to_json(config))
    return describe(stand, config, workdir)


def describe(
    stand: workspace.Workspace, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> workspace.Workspace:
    """The same of a work directory in which nothing is written."""
    stand.settings = build.build(run_settings.RunSettings, config)
    stand.workdir, stand._engines = workdir, []
    stand._config = build.to_json(config)
    stand.models = mock.create_autospec(model_store.ModelStore, instance=True)
    return stand
