"""What opening a workspace leaves, without models: for tests of stages that follow a script."""

import pathlib
from unittest import mock

import ml_collections

from data import json_files
from scripts import models, run_settings, workspace
from train import settings


def furnish(
    stand: workspace.Workspace, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> workspace.Workspace:
    """Gives it a run's settings and a work directory that has been entered; returns it."""
    json_files.write_text(workdir / 'config.json', settings.to_json(config))
    return describe(stand, config, workdir)


def describe(
    stand: workspace.Workspace, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> workspace.Workspace:
    """The same of a work directory in which nothing is written."""
    stand.settings = settings.build(run_settings.RunSettings, config)
    stand.workdir, stand._engines = workdir, []
    stand._config = settings.to_json(config)
    stand.models = mock.create_autospec(models.Models, instance=True)
    return stand
