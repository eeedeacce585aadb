"""Opens a bench: models, settings and samplers for an evaluation that belongs to no run."""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import ml_collections
from absl import flags
from etils import epath

from elenchus.data.grading import judge as judges
from elenchus.data.grading import verify
from elenchus.data.records import PLAYER_OF_ROLE, Problem
from elenchus.data.text.chat import Chat
from elenchus.model import platforms, sharding
from elenchus.model.attention import kernels
from elenchus.model.transformer import Transformer
from elenchus.sampling import slots
from elenchus.sampling.engine import weights
from elenchus.train.benchmarks import players
from elenchus.train.checkpoints.model_store import ModelStore
from elenchus.train.config import build, functions
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.config.stage_fields import MAY_CHANGE
from elenchus.train.run import content_ids, prompt_sizes
from elenchus.train.run import inputs as inputs_lib
from elenchus.train.run.directory import RunDirectory
from elenchus.train.run.inputs import RunInputs
from elenchus.train.run.samplers import Samplers

IRRELEVANT = (
    *MAY_CHANGE,
    *('sampling.engine', 'sampling.score', 'model.max_length', 'train', 'data', 'self_talk'),
    *('reinforce', 'stages', 'evaluate.num_problems'),
)
"""Fields and sections of the config that do not change the figures of a bench."""

MULTIPLE = 32
"""Lengths are rounded up to a multiple of it."""


ROLES = tuple(PLAYER_OF_ROLE)
"""Turns after a question, with a critic; without one only the first."""


PromptLengths = Callable[[Chat], Sequence[int]]
"""Chat -> the tokens of each prompt."""


class Sizes(NamedTuple):
    """Lengths of conversations in tokens."""

    prompts: tuple[int, ...]  # lengths of prompt rows
    scored: int  # the longest conversation that ends with a critique
    whole: int  # the longest conversation
    reached: tuple[int, ...] = ()  # shorter cache lengths that early decode steps read


@dataclasses.dataclass(frozen=True)
class Models:
    """The models of a bench, as the command line names them."""

    actor: str  # folder of a model or stage
    critic: str = ''  # '': there is none
    template: str = ''  # chat template; '': that of the model
    dtype: str = ''  # of activations; '': float32 on a CPU, elsewhere that of the model
    max_length: int = 0  # most tokens that it may read; 0: as it was trained with

    @classmethod
    def of_flags(cls, values: flags.FlagValues) -> 'Models':
        """Returns the models that the flags of a script name."""
        actor = values.model or values.critic
        return cls(
            actor, values.critic or '', values.template, values.dtype, max_length=values.max_length
        )


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
        self, out: str | os.PathLike, places: Mapping[str, str], *, rows: Mapping[str, Sequence]
    ) -> Iterator[RunDirectory]:
        """Opens and locks the folder of results; `places` says for each set where it comes from.

        What was sampled there continues, if everything that it depends on is as it was, also the
        content of models, functions and `rows`, which are those of each set.
        """
        text = json.loads(build.to_json(self.config))
        text['bench'] = {
            'model': str(self.player.folder),
            'critic': self.models.critic,
            'data': {n: f'{place}, content {_hash(rows[n])}' for n, place in places.items()},
            'contents': self._contents(),
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

    def _contents(self) -> dict[str, str | None]:
        """Returns ids of what lies at the paths of models and functions."""
        folders = {'model': str(self.player.folder)}
        if self.models.critic:
            folders['critic'] = str(players.find_model('critic', self.models.critic))
        ids = {name: content_ids.content_id(folder) for name, folder in folders.items()}
        named = [f for f in functions.functions_of(self.settings) if _reads('', f.field)]
        return ids | {f.reference: slots.load(f.reference).source_hash for f in named}


def _hash(rows: Sequence) -> str:
    """Returns sixteen hexadecimal digits that change with any problem or solution."""
    return hashlib.sha256(repr(list(rows)).encode()).hexdigest()[:16]


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
    prompt_lengths: PromptLengths | None = None,
    question_tokens: int = 0,
) -> Iterator[Bench]:
    """Loads the models, and chooses lengths for the longest question.

    With `prompt_lengths` only critiques are sampled, after these prompts; `question_tokens` is the
    room of questions that are not known yet. Raises ValueError, naming the flag or field, if a
    model is missing or cannot read conversations as long as these.
    """
    player = players.find_player('model', models.actor, template=models.template)
    config = config.copy_and_resolve_references().unlock()
    fit_to_player(config, player, models.dtype)
    before = inputs_lib.with_reflection(build.build(RunSettings, config), player.tokenizer)
    chat = Chat(player.tokenizer, player.template, prompts=before.prompts)
    prompt_sizes.check_prompts(chat)
    if prompt_lengths is None:
        roles = ROLES if models.critic else ROLES[:1]
        sizes = question_sizes(config, chat, problems, unknown=question_tokens, roles=roles)
    else:
        sizes = critique_sizes(config, chat, prompt_lengths(chat))
    room = before.sampling.engine.lookup.room
    fit_lengths(config, sizes, longest=models.max_length or player.config.max_length, room=room)
    settings = inputs_lib.with_reflection(build.build(RunSettings, config), player.tokenizer)
    mesh = sharding.make_mesh((*settings.mesh, settings.context))
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


def question_sizes(
    config: ml_collections.ConfigDict,
    chat: Chat,
    problems: Sequence[Problem],
    *,
    unknown: int,
    roles: Sequence[str] = ROLES,
) -> Sizes:
    """Returns the sizes of conversations of a question and one turn of each role.

    Only turns that are sampled get room, because decode steps would read the cache of others too.
    `unknown` is the length of a question where `problems` is empty.
    """
    empty = Problem('', '', '', '', 0, 'jsonl')
    sizes = [inputs_lib.question_tokens(chat, problem, roles) for problem in problems]
    sizes = sorted(sizes or [inputs_lib.question_tokens(chat, empty, roles) + unknown])
    sampling, between = config.sampling, chat.overhead
    ends = [sizes[-1] + between]
    for role in roles:
        ends.append(ends[-1] + sampling[f'{role}_tokens'] + between)
    # Most attempts end long before their limit. Two of the longest questions fill a row, which so
    # has less padding: it has room for several of the others.
    half = ends[0] + sampling.attempt_tokens // 2
    return Sizes(
        prompts=(2 * ends[0], *ends[1:-1]),
        scored=ends[min(2, len(roles))],
        whole=ends[-1],
        reached=(half, *ends[1:-1]),
    )


def critique_sizes(config: ml_collections.ConfigDict, chat: Chat, prompts: Sequence[int]) -> Sizes:
    """Returns the sizes of conversations that a critique ends."""
    ordered = sorted(prompts)
    whole = ordered[-1] + config.sampling.critique_tokens + chat.overhead
    return Sizes((ordered[len(ordered) // 2], ordered[-1]), scored=whole, whole=whole)


def fit_lengths(
    config: ml_collections.ConfigDict, sizes: Sizes, *, longest: int, room: int = 0
) -> None:
    """Sets all lengths of a config; `room` is the cache a decode step needs past a conversation.

    Raises ValueError if the model is too short for them.
    """

    def up(size: int) -> int:
        """Rounds up: few shapes compile fast."""
        return -(-size // MULTIPLE) * MULTIPLE

    needed = sizes.whole + room
    if needed > longest:
        raise ValueError(
            f'a conversation may have {needed} tokens, but the model reads {longest}: lower '
            'sampling.attempt_tokens or, with a critic, sampling.critique_tokens or '
            f'sampling.refinement_tokens, or allow it with --max_length={needed}; it may not have '
            'learnt such positions'
        )
    whole = up(needed)
    config.model.max_length = config.train.length = whole
    buckets = tuple(sorted({min(up(size), whole) for size in sizes.prompts}))
    reached = tuple(sorted({up(size) for size in sizes.reached} - {whole}))
    config.sampling.engine.update(
        max_length=whole, prompt_buckets=buckets, decode_cache_lengths=reached
    )
    # Most conversations are much shorter than the longest; a length is a program, if it is used.
    config.sampling.score.lengths = tuple(sorted({up(sizes.scored // n) for n in (4, 2, 1)}))
