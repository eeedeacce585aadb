"""Runs without models, for tests of stages that follow a script.

A fake run has real settings, a real directory on disk and real judged problems. Its models are
names, and its samplers use the engines of tests.support.fake_engine.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath

from elenchus.data.critiques import grammars
from elenchus.data.files import atomic
from elenchus.data.grading.judge import Judge
from elenchus.data.records import Problem
from elenchus.sampling.engine.generator import Generator
from elenchus.sampling.episodes import Sampler
from elenchus.train.checkpoints import saved_models
from elenchus.train.config import build, run_settings
from elenchus.train.run.directory import RunDirectory
from elenchus.train.run.inputs import RunInputs
from elenchus.train.run.samplers import Samplers
from elenchus.train.run.session import Run
from elenchus.train.stages import evaluate
from tests.support import fake_engine

CORRECT = 0.9
"""Probability that the scores of a FakeModel give to a step that its critique calls correct."""
WEIGHTS = 'weights'
"""File of a saved FakeModel, with its name."""


def undrawn():
    """Leaves out the plots of `evaluate` in a block: they cost a second of processor time."""
    return mock.patch.object(evaluate, 'save_plots')


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class FakeModel:
    """Model that is a name. As a critic it is sure of what it writes: it predicts every next token.

    The step scores of its critiques are 0.9 where they say correct and 0.1 where they say wrong.
    """

    name: str

    def __call__(self, tokens: jax.Array, positions: jax.Array) -> tuple[jax.Array, None]:
        """Returns the one-hot next token at every position, [B, T, V]."""
        return jax.nn.one_hot(jnp.roll(tokens, -1, axis=1), fake_engine.TOKENIZER.vocab_size), None

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Returns logits by which the next token is 9 times as likely as any other."""
        return hidden * np.log(CORRECT / (1 - CORRECT))

    def logits_of(self, hidden: jax.Array, tokens: jax.Array) -> jax.Array:
        """Returns those logits of some tokens alone."""
        return self.logits(hidden)[..., tokens]


class FakeModelStore:
    """ModelStore of FakeModels. A model that is loaded has the name of the folder around it."""

    def load(self, folder: str | os.PathLike) -> FakeModel:
        """Returns the model of FOLDER/model, named FOLDER."""
        return FakeModel(epath.Path(folder).parent.name)

    def load_to_train(self, folder: str | os.PathLike, settings: Any, *, seed: int) -> FakeModel:
        """Returns what `load` does; nothing is adapted."""
        return self.load(folder)

    def save(self, folder: os.PathLike, model: FakeModel) -> None:
        """Writes the name of a model, and a description that a whole model could have."""
        atomic.write_text(epath.Path(folder) / WEIGHTS, model.name)
        atomic.write_text(epath.Path(folder) / saved_models.DESCRIPTION, '{}')

    def release(self) -> None:
        """Does nothing: no base is cached."""


@dataclasses.dataclass(frozen=True)
class ScriptedSamplers(Samplers):
    """Samplers that use these engines instead of making one."""

    whole: Generator | None = None  # of whole turns
    line: Generator | None = None  # of single lines

    def whole_turns(self) -> Sampler:
        """Returns a sampler of whole turns."""
        return Sampler(self.whole, self.inputs.chat, fake_engine.LIMITS)

    def lines(self) -> Sampler:
        """Returns a sampler of single lines."""
        return Sampler(self.line, self.inputs.chat, fake_engine.LIMITS)


def make_inputs(
    train_problems: Sequence[Problem] = (),
    test_problems: Sequence[Problem] = (),
    *,
    judge: Judge = fake_engine.judge,
) -> RunInputs:
    """Returns the inputs of a run on the lab."""
    return RunInputs(
        train_problems,
        test_problems,
        fake_engine.TOKENIZER,
        fake_engine.CHAT,
        grammars.LAB,
        judge,
        vocab_size=fake_engine.TOKENIZER.vocab_size,
    )


def make_run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    inputs: RunInputs,
    *,
    whole: Generator | None = None,
    line: Generator | None = None,
    complete: Sequence[str] = (),
) -> Run:
    """Returns a run in `workdir` that has started; the stages in `complete` have saved a model."""
    settings = build.build(run_settings.RunSettings, config)
    directory = RunDirectory(
        epath.Path(workdir), build.to_json(config), settings.stages, settings.sampling.part_size
    )
    atomic.write_text(directory.path / 'config.json', directory.config)
    samplers = ScriptedSamplers(settings.sampling, inputs, whole=whole, line=line)
    run = Run(settings, directory, inputs, samplers, FakeModelStore(), mesh=None)
    for name in complete:
        run.store.save(directory.stage(name).path / 'model', FakeModel(name))
    return run
