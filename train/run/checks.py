"""Checks of a run before it starts: settings that depend on each other, and files they name."""

import dataclasses
import importlib.util
from collections.abc import Iterable

import jax
from etils import epath

from elenchus.data.critiques import oracle
from elenchus.model import sharding
from elenchus.model.config import ModelConfig
from elenchus.model.row_shards import num_row_shards
from elenchus.sampling.critique_data import api_requests
from elenchus.sampling.engine import shapes, weights
from elenchus.sampling.exploration.explorers import EXPLORERS
from elenchus.train import loop
from elenchus.train.checkpoints import saved_models
from elenchus.train.config import checks
from elenchus.train.config.run_settings import REINFORCED, RunSettings
from elenchus.train.metrics import trackers
from elenchus.train.rl import iterations, rollout_devices
from elenchus.train.run import lengths, prompt_sizes
from elenchus.train.run.inputs import RunInputs
from elenchus.train.run.paths import resolve


def check_run(settings: RunSettings, inputs: RunInputs) -> None:
    """Raises ValueError, naming the field, if a stage could not do what the settings say."""
    check_saved_models(settings, inputs.tokenizer.fingerprint)
    checks.check_template(settings, inputs.chat.template)
    prompt_sizes.check_prompts(inputs.chat)
    check_grammar(settings)
    lengths.check_questions(settings, inputs)
    check_annotator(settings, inputs.tokenizer.fingerprint)
    check_trackers(settings)
    scored = {'evaluate', *REINFORCED, *(EXPLORERS if settings.improve.num_monitored else ())}
    if set(settings.stages) & scored:
        inputs.check_verdicts()


def check_trackers(settings: RunSettings) -> None:
    """Raises ValueError if the library of a tracker is not installed."""
    for library in settings.tracking.libraries:
        if importlib.util.find_spec(library) is None:
            raise ValueError(
                f'tracking.libraries={settings.tracking.libraries}: {library!r} is not installed; '
                f"pip install '{trackers.EXTRAS[library]}', or leave it out"
            )


def check_sampling(settings: RunSettings, mesh: jax.sharding.Mesh) -> None:
    """Raises ValueError, naming the field, if the sampler's shapes do not divide over the mesh.

    Rows that do not divide would be computed whole by every device. A run of `base` and `actor`
    alone samples nothing and is not checked.
    """
    if not set(settings.stages) - {'base', 'actor'}:
        return
    weights.check_sampler(settings.model, settings.sampling.engine, mesh)
    shards = num_row_shards(mesh)
    shapes.check_divides('sampling.score.rows', settings.sampling.score.rows, shards)


def check_mesh(settings: RunSettings, mesh: jax.sharding.Mesh) -> None:
    """Raises ValueError, naming the field, if weights or rows do not divide over a mesh."""
    model = settings.model
    for axis, names in (
        ('tensor', ('num_heads', 'mlp_dim', 'vocab_size')),
        ('fsdp', ('embed_dim',)),
    ):
        for name in names:
            size, parts = getattr(model, name), mesh.shape[axis]
            if size % parts:
                nearest = max(n for n in range(1, parts) if size % n == 0)
                raise ValueError(
                    f'mesh={settings.mesh}: model.{name}={size} does not divide over '
                    f'{axis}={parts}; nearest {axis}: {nearest}'
                )
    check_context(settings, mesh)
    loop.check_rows(settings.train, mesh)
    if any(stage in REINFORCED for stage in settings.stages):
        check_reinforcement(settings, mesh)


def check_reinforcement(settings: RunSettings, mesh: jax.sharding.Mesh) -> None:
    """Raises ValueError, naming the field, if reinforcement does not fit the devices."""
    r = settings.reinforce
    rollout_devices.check_overlap(r, mesh)
    if r.rollout_devices:
        mesh, sampler = rollout_devices.parts(mesh, r.rollout_devices)
        check_sampling(settings, sampler)
    iterations.check_rows(r, settings.train, mesh)


def check_context(settings: RunSettings, mesh: jax.sharding.Mesh) -> None:
    """Raises ValueError, naming the field, if weights or sequences do not divide over 'context'."""
    parts = sharding.context_size(mesh)
    if parts == 1:
        return
    fields = [('train.length', settings.train.length)]
    if any(stage in REINFORCED for stage in settings.stages):
        r = settings.reinforce
        if r.samples_per_row > 1:
            raise ValueError(
                f'context={parts} does not split rows whose samples share a prompt: '
                f'reinforce.samples_per_row={r.samples_per_row}; nearest: 1'
            )
        fields += [('reinforce.length', r.length), ('reinforce.critic_length', r.critic_length)]
    if set(settings.stages) - {'base', 'actor'}:
        scored = settings.sampling.score.lengths
        fields += [(f'sampling.score.lengths[{i}]', n) for i, n in enumerate(scored)]
    for name, length in fields:
        if length % parts:
            raise ValueError(
                f'{name}={length} does not divide over context={parts}; '
                f'nearest: {max(1, round(length / parts)) * parts}'
            )
    width, shards = settings.model.embed_dim, mesh.shape['fsdp'] * parts
    if width % shards:
        raise ValueError(
            f'context={parts}: model.embed_dim={width} does not divide over fsdp * context = '
            f'{shards}; nearest multiple: {max(1, round(width / shards)) * shards}'
        )


def check_saved_models(settings: RunSettings, fingerprint: str) -> None:
    """Raises ValueError if a saved model that the run needs is missing or of another shape."""
    stages = set(settings.stages)
    improves, reinforces = stages & set(EXPLORERS), stages & set(REINFORCED)
    for name, path, model in (
        ('base.checkpoint', settings.base.checkpoint, settings.model),
        ('critic.checkpoint', settings.critic.checkpoint, None),
        ('improve.teacher', improves and settings.improve.teacher, None),
        ('reinforce.teacher', reinforces and settings.reinforce.teacher, None),
    ):
        if path:
            check_saved_model(
                name, path, model or settings.model, fingerprint=fingerprint, exact=bool(model)
            )


def check_saved_model(
    name: str, path: str, model: ModelConfig, *, fingerprint: str, exact: bool
) -> None:
    """Raises ValueError, naming the field, unless a model is there, of this shape if `exact`."""
    shape = saved_shape(name, path, model)
    try:
        saved_models.check_model(
            resolve(path), model if exact else shape, tokenizer_fingerprint=fingerprint
        )
    except ValueError as error:
        raise ValueError(f'{name}={path!r}: {error}') from None


def saved_shape(name: str, path: str, numerics: ModelConfig) -> ModelConfig:
    """Returns the config of the saved model that a field names, with these numerics.

    Raises ValueError, naming the field, if there is none. The error says where the model is, or how
    it is imported, if the folder has one of another kind.
    """
    folder = resolve(path)
    if not folder.is_dir():
        raise ValueError(
            f"folder not found: {name}={path!r} ({folder}); use a saved model, or '' for none"
        )
    if not (folder / saved_models.DESCRIPTION).exists():
        nearest = "a saved model, or '' for none"
        if (folder / 'model' / saved_models.DESCRIPTION).exists():
            nearest = f'nearest: {str(epath.Path(path) / "model")!r}'
        elif (folder / 'config.json').exists():
            nearest = 'import it (scripts.convert import)'
        raise ValueError(f'{name}={path!r}: {folder} is no saved model; {nearest}')
    try:
        return saved_models.saved_config(folder, numerics)
    except ValueError as error:
        raise ValueError(f'{name}={path!r}: {error}') from None


def teacher_shape(s: RunSettings, section: str, *, stages: Iterable[str]) -> ModelConfig | None:
    """Returns the shape of the model that a section's stages distil, if the run has one of them."""
    path = getattr(s, section).teacher
    if not path or not set(stages) & set(s.stages):
        return None
    shape = saved_shape(f'{section}.teacher', path, s.model)
    return dataclasses.replace(shape, vocab_size=s.model.vocab_size)


def check_grammar(settings: RunSettings) -> None:
    """Raises ValueError if the problems or the annotator cannot have the grammar of critiques."""
    name, annotator = settings.prompts.grammar, settings.critique.annotator
    annotates = 'critique' in settings.stages or settings.improve.retrain_critic
    if name and settings.data.source == 'lab':
        raise ValueError(
            f'prompts.grammar={name!r} is of critiques in free text; the lab has its own: set it '
            "to ''"
        )
    if name == 'boxed' and annotates and annotator in ('oracle', 'calculator', 'api'):
        raise ValueError(
            f"critique.annotator={annotator!r} writes the grammars 'released' and 'worked', not "
            "prompts.grammar='boxed'"
        )


def check_annotator(settings: RunSettings, fingerprint: str) -> None:
    """Raises ValueError if the annotator of critique data cannot be made."""
    s = settings.critique
    path, field = resolve(s.annotator_path), f'critique.annotator_path={s.annotator_path!r}'
    if s.annotator not in ('model', 'file') and s.annotator_path:
        raise ValueError(f"{field} is not read by critique.annotator={s.annotator!r}: set it to ''")
    by_text = s.annotator in ('calculator', 'api')
    if by_text and settings.data.source == 'lab':
        raise ValueError(
            f"critique.annotator={s.annotator!r} writes about real text; on the lab use 'oracle'"
        )
    needs_key = 'critique' in settings.stages or settings.improve.retrain_critic
    if s.annotator == 'api' and needs_key:
        api_requests.read_key(s.api)
    if s.annotator == 'file':
        if not s.annotator_path or not path.exists():
            raise ValueError(f'file not found: {field}; it must be a file of critiques')
        oracle.from_file(path)
    if s.annotator == 'model':
        if not s.annotator_path:
            raise ValueError(f'{field} must be a saved model for critique.annotator="model"')
        check_saved_model(
            'critique.annotator_path',
            s.annotator_path,
            settings.model,
            fingerprint=fingerprint,
            exact=False,
        )
