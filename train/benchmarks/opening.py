"""Opens a bench: models, settings and samplers for an evaluation that belongs to no run."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence

import jax
import ml_collections
from etils import epath

from elenchus.data.grading import judge as judges
from elenchus.data.grading import verify
from elenchus.data.records import Problem
from elenchus.data.text.chat import Chat
from elenchus.model import platforms, sharding
from elenchus.model.attention import kernels
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine import weights
from elenchus.train.benchmarks import players
from elenchus.train.checkpoints.model_store import ModelStore
from elenchus.train.config import build
from elenchus.train.config.run_settings import MAY_CHANGE, RunSettings
from elenchus.train.run import inputs as inputs_lib
from elenchus.train.run import prompt_sizes
from elenchus.train.run.directory import RunDirectory
from elenchus.train.run.inputs import RunInputs
from elenchus.train.run.samplers import Samplers

IRRELEVANT = (
    *MAY_CHANGE,
    *('sampling.engine', 'sampling.score', 'model.max_length', 'train', 'data', 'self_talk'),
    *('reinforce', 'stages', 'evaluate.num_problems'),
)
"""Fields, and sections, of the config on which no figure of a bench depends."""

MULTIPLE = 32
"""Lengths are rounded up to a multiple of it."""


@dataclasses.dataclass(frozen=True)
class Models:
    """The models of a bench, as the command line names them."""

    actor: str  # folder of a model or stage
    critic: str = ''  # '': there is none
    template: str = ''  # chat template; '': that of the model
    dtype: str = ''  # of activations; '': float32 on a CPU, elsewhere that of the model


@dataclasses.dataclass(frozen=True)
class Bench:
    """Models that are ready to be sampled, with settings for a set of conversations."""

    models: Models
    settings: RunSettings
    config: ml_collections.ConfigDict
    chat: Chat
    player: players.SavedPlayer
    actor: Transformer
    critic: Transformer | None
    verifier: verify.Verifier

    def samplers(self, source: str, problems: Sequence[Problem] = ()) -> Samplers:
        """Returns samplers for problems of a source, which tells how they are judged."""
        is_lab = source == 'lab'
        grammar = 'lab' if is_lab else 'released'
        inputs = RunInputs(
            train_problems=[],
            test_problems=problems,
            tokenizer=self.chat.tokenizer,
            chat=self.chat,
            grammar=inputs_lib.GRAMMARS[self.settings.prompts.grammar or grammar],
            judge=inputs_lib.judge_on_first_process(
                judges.make_judge(source, self.verifier, self.settings.data.answer.markers)
            ),
            vocab_size=self.settings.model.vocab_size,
        )
        return Samplers(self.settings.sampling, inputs)

    @contextlib.contextmanager
    def directory(
        self, out: str | os.PathLike, places: Mapping[str, str]
    ) -> Iterator[RunDirectory]:
        """Opens and locks the folder of results; `places` says for each set where it comes from.

        What was sampled there continues, if everything that it depends on is as it was.
        """
        text = json.loads(build.to_json(self.config))
        text['bench'] = {
            'model': str(self.player.folder),
            'critic': self.models.critic,
            'data': dict(places),
        }
        directory = RunDirectory(
            epath.Path(out),
            json.dumps(text, indent=2, sort_keys=True) + '\n',
            tuple(places),
            self.settings.sampling.part_size,
            reads=_reads,
        )
        directory.check_stages()
        with directory.locked():
            tokenizer = self.chat.tokenizer
            tokenizer.save(directory.path / tokenizer.file_name)
            yield directory


def _reads(stage: str, field: str) -> bool:
    """Returns whether the figures of a set depend on a field of the config."""
    if field.startswith('bench.data.'):
        return field == f'bench.data.{stage}'
    return not any(field == name or field.startswith(f'{name}.') for name in IRRELEVANT)


@contextlib.contextmanager
def opened(
    models: Models,
    config: ml_collections.ConfigDict,
    problems: Sequence[Problem],
    *,
    attempt_tokens: int = 0,
) -> Iterator[Bench]:
    """Loads the models, and chooses lengths for the longest question.

    `attempt_tokens` is the longest attempt that is not sampled, if it is longer than
    `sampling.attempt_tokens`. Raises ValueError, naming the flag or field, if a model is missing or
    cannot read conversations as long as these.
    """
    player = players.find_player('model', models.actor, template=models.template)
    config = config.copy_and_resolve_references().unlock()
    fit_to_player(config, player, models.dtype)
    prompts = build.build(RunSettings, config).prompts
    chat = Chat(player.tokenizer, player.template, prompts=prompts)
    prompt_sizes.check_prompts(chat)
    fit_lengths(config, chat, problems, longest=player.config.max_length, attempt=attempt_tokens)
    settings = build.build(RunSettings, config)
    mesh = sharding.make_mesh(settings.mesh)
    kernels.check_backend(settings.model, jax.default_backend())
    weights.check_sampler(settings.model, settings.sampling.engine, mesh)
    store = ModelStore(
        settings.model, mesh, tokenizer_fingerprint=player.tokenizer.fingerprint, quantize='none'
    )
    jax.set_mesh(mesh)
    precision = platforms.product_precision(settings.model.dtype, settings.matmul_precision)
    jax.config.update('jax_default_matmul_precision', precision)
    actor, critic = store.load(player.folder), None
    if models.critic:
        folder = players.find_model('critic', models.critic)
        critic = actor if folder == player.folder else store.load(folder)
    answer = settings.data.answer
    with verify.Verifier(
        num_workers=answer.workers or None, timeout_s=answer.timeout_s
    ) as verifier:
        yield Bench(models, settings, config, chat, player, actor, critic, verifier)


def fit_to_player(
    config: ml_collections.ConfigDict, player: players.SavedPlayer, dtype: str
) -> None:
    """Sets the sections that the saved model decides: `model` and `tokenizer`."""
    config.model.update(dataclasses.asdict(player.config))
    is_cpu = jax.default_backend() == 'cpu'  # where bfloat16 is emulated
    config.model.dtype = dtype or ('float32' if is_cpu else player.config.dtype)
    config.tokenizer.update(
        kind='file', path=str(player.tokenizer_path or ''), template=player.template.name
    )


def fit_lengths(
    config: ml_collections.ConfigDict,
    chat: Chat,
    problems: Sequence[Problem],
    *,
    longest: int,
    attempt: int,
) -> None:
    """Sets all lengths for the longest question. Raises ValueError if the model is too short.

    A conversation is question, attempt, critique and refinement, and `overhead` tokens between.
    """
    sizes = [inputs_lib.question_tokens(chat, problem) for problem in problems]
    sampling, overhead = config.sampling, chat.overhead
    turns = [max(sizes), max(sampling.attempt_tokens, attempt)]
    turns += [sampling.critique_tokens, sampling.refinement_tokens]

    def end(*parts: int) -> int:
        """Returns the length of a conversation, rounded up: few shapes compile fast."""
        return -(-(sum(parts) + overhead * len(parts)) // MULTIPLE) * MULTIPLE

    needed = end(*turns)
    if needed > longest:
        at = max(range(len(problems)), key=sizes.__getitem__)
        raise ValueError(
            f'a conversation may have {needed} tokens, {max(sizes)} of them for the question '
            f'{problems[at].id!r} with its prompt, but the model reads {longest}: lower '
            'sampling.attempt_tokens, sampling.critique_tokens or sampling.refinement_tokens'
        )
    median = sorted(sizes)[len(sizes) // 2]
    buckets = {end(median), *(end(*turns[:n]) for n in (1, 2, 3))}
    config.model.max_length = config.train.length = needed
    sampling.engine.update(max_length=needed, prompt_buckets=tuple(sorted(buckets)))
    sampling.score.lengths = (end(*turns[:3]),)
