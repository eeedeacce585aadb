"""An opened run: its settings, folder, inputs, samplers and models, all checked."""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Iterator

import jax
import ml_collections
from etils import epath

from elenchus.data.files import atomic
from elenchus.data.grading import verify
from elenchus.data.text import derived_templates
from elenchus.data.text.printable import printable
from elenchus.model import platforms, sharding, transformer
from elenchus.model.attention import kernels
from elenchus.model.transformer import Transformer
from elenchus.train import distributed, output, watchdog
from elenchus.train.checkpoints import saved_models
from elenchus.train.checkpoints.model_store import ModelStore
from elenchus.train.config import build, players, stage_fields, workdirs
from elenchus.train.config import checks as config_checks
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.metrics import tracking
from elenchus.train.run import checks, lengths, problems, provenance, stage_inputs
from elenchus.train.run.directory import RunDirectory
from elenchus.train.run.inputs import RunInputs, load_inputs, with_reflection
from elenchus.train.run.paths import resolve
from elenchus.train.run.samplers import Samplers

TEMPLATE_FILE = 'chat_template.json'
"""File of a run with the published chat template that its own was derived from."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that the stages of a run share. Stage bodies take only what they use of it."""

    settings: RunSettings
    directory: RunDirectory
    inputs: RunInputs
    samplers: Samplers
    store: ModelStore
    mesh: jax.sharding.Mesh
    verifier: verify.Verifier | None = None

    @property
    def reader(self) -> stage_inputs.StageReader:
        """What determines the inputs of the run's stages."""
        return stage_inputs.StageReader(self.settings, self.directory, self.inputs)

    @contextlib.contextmanager
    def started(self) -> Iterator['Run']:
        """Locks the work directory for this run; writes the config and tokenizer into it."""
        tokenizer = self.inputs.tokenizer
        with self.directory.locked():
            path = self.directory.path / tokenizer.file_name
            distributed.run_on_first(lambda: tokenizer.save(path))
            if source := self.inputs.chat.template.source:
                path, text = self.directory.path / TEMPLATE_FILE, derived_templates.to_json(source)
                distributed.run_on_first(lambda: atomic.write_text(path, text))
            output.open_log(self.directory.path)
            config = json.loads(self.directory.config)
            options = {'config': config, 'decode': tokenizer.decode}
            with (
                watchdog.Watchdog(self.directory.path, self.settings.watchdog),
                tracking.tracked(self.settings.tracking, self.directory.path, **options),
            ):
                yield self

    def load_model(self, stage: str) -> Transformer:
        """Loads the model that a stage of this run ended with."""
        return self.store.load(self.directory.model_folder(stage))

    def load_latest(self, player: str, *, before: str) -> Transformer:
        """Loads the model that a player of the stage `before` starts from (`start_folder`)."""
        return self.store.load(self.start_folder(before, player))

    def start_folder(self, stage: str, player: str) -> epath.Path:
        """The folder of the model that a player of a stage starts from.

        Raises ValueError if the stage that makes it has not run.
        """
        start = players.start_of(self.settings, stage, player)
        if not start:
            return resolve(self.settings.critic.checkpoint)
        if start == 'reinforce_both':
            return self.directory.stage(start).path / player / 'model'
        return self.directory.model_folder(start)

    def load_saved(self, path: str) -> Transformer:
        """Loads a saved model that the config names."""
        return self.store.load(resolve(path))

    def init_model(self) -> Transformer:
        """Initialises a model with random weights, each shard on its device."""
        return transformer.init_model(self.settings.model, jax.random.key(self.settings.seed))


def saved_chat(settings: RunSettings, inputs: RunInputs) -> dict[str, str]:
    """Returns what a saved model says about its chat template; a derived one with its source."""
    chat = {'template': settings.tokenizer.template, 'system': settings.tokenizer.system}
    source = inputs.chat.template.source
    return chat | ({'source': derived_templates.to_json(source)} if source else {})


def check_same_template(folder: epath.Path, inputs: RunInputs) -> None:
    """Raises ValueError if a run was started with another published chat template."""
    path, source = folder / TEMPLATE_FILE, inputs.chat.template.source
    if source and path.is_file() and derived_templates.from_json(path.read_text()) != source:
        raise ValueError(
            f'the chat template beside tokenizer.path is another than that of this run, saved in '
            f'{path}: put the saved one back, or use another --workdir'
        )


def read_inputs(settings: RunSettings, verifier: verify.Verifier) -> tuple[RunSettings, RunInputs]:
    """Reads a run's inputs, and drops too long questions; settings get the reflection as ids."""
    inputs = load_inputs(settings, verifier)
    settings = with_reflection(settings, inputs.tokenizer)
    return settings, lengths.drop_too_long(settings, inputs)


def open_run(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    *,
    verifier: verify.Verifier,
) -> Run:
    """Opens a run: reads its inputs and checks everything that can be checked before it starts.

    Writes nothing into `workdir` (see `Run.started`). Sets the run's mesh and matrix product
    precision for the whole process. Raises ValueError, naming the field.
    """
    settings = build.build(RunSettings, config)
    config_checks.check_settings(settings)
    config_text = build.to_json(config)
    distributed.check_same('the config', config_text.encode())
    distributed.check_same('the code', provenance.code_hash().encode())
    directory = RunDirectory(
        workdirs.checked(workdir),
        config_text,
        settings.stages,
        settings.sampling.part_size,
        reads=functools.partial(stage_fields.reads, settings),
    )
    directory.check_stages()
    mesh = sharding.make_mesh((*settings.mesh, settings.context))
    kernels.check_backend(settings.model, jax.default_backend())
    settings, inputs = read_inputs(settings, verifier)
    checks.check_mesh(settings, mesh)
    saved_models.abstract_model(settings.model, mesh)
    checks.check_sampling(settings, mesh)
    checks.check_run(settings, inputs)
    distributed.check_same('the tokenizer', inputs.tokenizer.fingerprint.encode())
    check_same_template(directory.path, inputs)
    store = ModelStore(
        settings.model,
        mesh,
        tokenizer_fingerprint=inputs.tokenizer.fingerprint,
        quantize=settings.base.quantize,
        chat=saved_chat(settings, inputs),
    )
    if notes := problems.describe(inputs.counts):
        distributed.run_on_first(lambda: print(printable(f'data: {notes}')))
    jax.set_mesh(mesh)
    # JAX's own default multiplies float32 arrays in bfloat16 on a TPU.
    precision = platforms.product_precision(settings.model.dtype, settings.matmul_precision)
    jax.config.update('jax_default_matmul_precision', precision)
    samplers = Samplers(settings.sampling, inputs).checked()
    run = Run(settings, directory, inputs, samplers, store, mesh, verifier)
    stage_inputs.check(run.reader)
    return run
