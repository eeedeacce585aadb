"""A run's settings and its work directory: what every stage opens, and how a stage is recorded."""

import contextlib
import functools
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import jax
import ml_collections
from etils import epath

from elenchus.data import records
from elenchus.data.critiques import grammars, oracle
from elenchus.data.files import json_files
from elenchus.data.grading import judge, verify
from elenchus.data.records import Episode
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.chat import Chat
from elenchus.data.text.chat_templates import TEMPLATES
from elenchus.model import attention, lora, sharding, transformer
from elenchus.model.config import ModelConfig
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.engine import Engine
from elenchus.sampling.engine.sampling_methods import Greedy, Sampling
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.exploration.context import Players
from elenchus.sampling.exploration.explorers import EXPLORERS
from elenchus.sampling.step_scores import StepScorer
from elenchus.train import distributed, sft
from elenchus.train.checkpoints import checkpoint
from elenchus.train.checkpoints.model_store import Models
from elenchus.train.config import build
from elenchus.train.config.run_settings import (
    MAY_CHANGE,
    RunSettings,
    check_counts,
    check_lengths,
    check_lora,
)
from elenchus.train.metrics import writers
from elenchus.train.run import inputs, lock

CONFIG = 'config.json'

MAKERS = {
    'actor': ('actor', *EXPLORERS, 'reinforce', 'reinforce_both'),
    'critic': ('critic', 'reinforce_critic', 'reinforce_both'),
}
"""The stages that end with a player."""


class Workspace:
    """An opened run. Opening checks everything that can be checked before anything is written.

    A context manager: from entering on, the work directory is this run's alone.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: str | os.PathLike,
        *,
        verifier: verify.Verifier,
    ):
        self.settings = build.build(RunSettings, config)
        self.workdir = epath.Path(workdir)
        self._config = build.to_json(config)
        distributed.check_same('the config', self._config.encode())
        self._check_config(self.workdir / 'config.json', f'{self.workdir} was begun')
        self.mesh = sharding.make_mesh(self.settings.mesh)
        attention.check_backend(self.settings.model, jax.default_backend())
        self._engines: list[Engine] = []
        self.train_problems = inputs.load_problems(self.settings, 'train')
        self.test_problems = inputs.load_problems(self.settings, 'test')
        self.tokenizer = inputs.load_tokenizer(self.settings, self.train_problems)
        self.chat = Chat(self.tokenizer, TEMPLATES[self.settings.tokenizer.template])
        self.models = Models(
            self.settings.model,
            self.mesh,
            tokenizer_fingerprint=self.tokenizer.fingerprint,
            quantize=self.settings.base.quantize,
        )
        self.grammar = grammars.LAB if self.settings.data.source == 'lab' else grammars.RELEASED
        self.judge = self._judge(verifier)
        checkpoint.abstract_model(self.settings.model, self.mesh)
        sft.check_rows(self.settings.train, self.mesh)
        self._check_given()
        check_counts(self.settings)
        check_lora(self.settings)
        asked = self.settings, self.chat, self.train_problems
        check_lengths(
            self.settings,
            inputs.longest_question(self.chat, (*self.train_problems, *self.test_problems)),
            longest_guide=inputs.longest_guide(*asked, self.grammar),
            longest_hint=inputs.longest_hint(*asked),
            overhead=self.chat.overhead,
        )
        self._check_annotator()
        distributed.check_same('the tokenizer', self.tokenizer.fingerprint.encode())
        jax.set_mesh(self.mesh)
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        distributed.from_first(self._begin)
        return self

    def __exit__(self, *_) -> None:
        self._open.close()

    def _begin(self) -> None:
        self._open.enter_context(lock.held(self.workdir))
        json_files.write_text(self.workdir / CONFIG, self._config)
        self.tokenizer.save(self.workdir / self.tokenizer.file_name)

    def _judge(self, verifier: verify.Verifier) -> judge.Judge:
        """The judge, asked by the first process: what runs into a time limit is chance."""
        alone = judge.make_judge(self.settings.data.source, verifier)
        return lambda pairs: distributed.from_first(lambda: alone(pairs))

    # What stages use

    @property
    def sampling_method(self) -> Sampling:
        return self.method_at(self.settings.sampling.temperature)

    def method_at(self, temperature: float) -> Sampling:
        """The sampling method at another temperature."""
        s = self.settings.sampling
        return Sampling(temperature, s.top_k, s.top_p, s.min_p, self.banned)

    @property
    def greedy_method(self) -> Greedy:
        return Greedy(self.banned)

    @functools.cached_property
    def banned(self) -> tuple[int, ...]:
        """Ids that are never sampled: special tokens other than the end token, and unused ones."""
        control = self.tokenizer.special_ids - {self.chat.end_id}
        unused = range(self.tokenizer.vocab_size, self.settings.model.vocab_size)
        return tuple(sorted(control | set(unused)))

    @property
    def verdict_ids(self) -> dict[str, int]:
        """Ids of the first tokens of the two verdict words as they follow a space."""
        words = ('correct', 'wrong') if self.grammar is grammars.LAB else ('Correct', 'Wrong')
        correct, wrong = (tokenizers.following(self.tokenizer, f' {word}')[0] for word in words)
        if correct == wrong:
            raise ValueError(
                f'the tokenizer begins {words} with the same token: step rewards '
                'need two; take a larger vocabulary'
            )
        return {'correct_id': correct, 'wrong_id': wrong}

    def sampler(self) -> Sampler:
        """Writes whole turns."""
        return self._sampler(self.chat.end_id)

    def line_sampler(self) -> Sampler:
        """Writes a turn up to its next line break."""
        return self._sampler(self.chat.end_id, *sorted(self.tokenizer.newline_ids))

    def _sampler(self, *stop_ids: int) -> Sampler:
        s = self.settings.sampling
        engine = Engine(s.engine, stop_ids=stop_ids)
        self._engines.append(engine)
        return Sampler(engine, self.chat, s.limits)

    def players(self, sampler: Sampler, actor: Transformer, critic: Transformer) -> Players:
        return Players(sampler, actor, critic, self.judge, self.grammar)

    def scorer(self) -> StepScorer:
        return StepScorer(self.settings.sampling.score, self.verdict_ids)

    def init_model(self) -> Transformer:
        s = self.settings
        places = jax.tree.map(lambda x: x.sharding, checkpoint.abstract_model(s.model, self.mesh))
        init = lambda: transformer.init_model(s.model, jax.random.key(s.seed))  # noqa: E731
        return jax.jit(init, out_shardings=places)()

    def load_model(self, stage: str) -> Transformer:
        """The model that a stage of this run ended with."""
        return self.load_checkpoint(self.model_folder(stage))

    def model_folder(self, stage: str) -> epath.Path:
        """Where a stage's model is. Raises ValueError where the stage has not been run."""
        folder = self.stage_folder(stage) / 'model'
        if not folder.exists():
            raise ValueError(f'stage {stage!r} has not been run in {self.workdir}: run it first')
        return folder

    def load_given(self, path: str) -> Transformer:
        """A saved model that the config names."""
        return self.load_checkpoint(from_root(path))

    def newest(self, player: str, *, before: str) -> Transformer:
        """The player that the last stage before another one ended with."""
        earlier = self.settings.stages[: self.settings.stages.index(before)]
        made = [stage for stage in earlier if stage in MAKERS[player]] or [player]
        if made[-1] == 'reinforce_both':
            return self.load_checkpoint(self.stage_folder(made[-1]) / player / 'model')
        return self.load_model(made[-1])

    def load_checkpoint(self, folder: str | os.PathLike) -> Transformer:
        """A saved model, of any size; with adapters, on the one frozen copy of their base."""
        return self.models.load(folder)

    def load_to_train(
        self, folder: str | os.PathLike, settings: lora.LoraSettings, *, stage: str
    ) -> Transformer:
        """A saved model as `stage` trains it: whole, or frozen under adapters."""
        return self.models.load_to_train(folder, settings, seed=self.seed(stage))

    def save_model(self, folder: epath.Path, model: Transformer) -> None:
        self.models.save(folder / 'model', model)

    def stage_folder(self, stage: str) -> epath.Path:
        if stage not in self.settings.stages:
            raise ValueError(f'stage={stage!r} is none of config.stages={self.settings.stages}')
        return self.workdir / 'stages' / f'{self.settings.stages.index(stage):02d}-{stage}'

    def seed(self, stage: str) -> int:
        """A stage's own seed."""
        return (self.settings.seed * 1009 + zlib.crc32(stage.encode())) % 2**31

    @contextlib.contextmanager
    def writer(self, folder: epath.Path) -> Iterator[writers.Writer]:
        name = folder.relative_to(self.workdir / 'stages')
        with writers.Writer(folder, tensorboard=self.workdir / 'tensorboard' / name) as w:
            yield w

    # Stages

    def run_stage(self, stage: str, body: Callable[['Workspace', epath.Path], dict]) -> dict:
        """Runs a stage unless its summary says that it is complete; returns the summary."""
        return self.complete(self.stage_folder(stage), body)

    def complete(self, folder: epath.Path, body: Callable[['Workspace', epath.Path], dict]) -> dict:
        """What body(workspace, folder) tells, from the folder's summary where it has one.

        `seconds`, and with drafts `tokens_per_step`, are of the process that completed it. Raises
        ValueError where the folder was begun with another config, and Preempted where the process
        has been asked to leave.
        """
        name = f'stage {str(folder.relative_to(self.workdir / "stages"))!r}'
        self._check_config(folder / CONFIG, f'{name} was begun')
        if distributed.from_first((folder / 'summary.json').exists):
            return distributed.from_first(lambda: read_json(folder / 'summary.json'))
        if distributed.leaving():
            raise distributed.Preempted(f'{name} is not begun')
        distributed.from_first(lambda: json_files.write_text(folder / CONFIG, self._config))
        began, (tokens, steps) = time.perf_counter(), self._sampled()
        summary = {'tokens_sampled': 0, 'tokens_trained': 0} | body(self, folder)
        self.models.release()
        summary['seconds'] = round(time.perf_counter() - began, 1)
        all_tokens, all_steps = self._sampled()
        if self.settings.sampling.engine.draft_tokens and all_steps > steps:
            summary['tokens_per_step'] = round((all_tokens - tokens) / (all_steps - steps), 2)
        distributed.from_first(lambda: json_files.check_there(folder / CONFIG))
        distributed.from_first(lambda: write_json(folder / 'summary.json', summary))
        return summary

    def _sampled(self) -> tuple[int, int]:
        """Tokens that this run's engines have sampled, and steps they took."""
        return sum(e.tokens for e in self._engines), sum(e.steps for e in self._engines)

    def in_parts(
        self,
        folder: epath.Path,
        items: Sequence[Any],
        *,
        description: str,
        make: Callable[[Sequence[Any], int], tuple[Sequence[Episode], int]],
    ) -> tuple[list[Episode], int]:
        """(episodes, sampled tokens) of make(part of items, index of its first) for every part.

        Each part is one file of episodes, and one of its token count; parts on disk are kept.
        Raises Preempted between two parts, RuntimeError where processes sampled different things.
        """
        size, stored = self.settings.sampling.part_size, folder / 'episodes'
        numbers = range(-(-len(items) // size))
        paths = [stored / f'part-{number:05d}.array_record' for number in numbers]
        there = distributed.from_first(lambda: [path.exists() for path in paths])
        with writers.progress(len(items), unit='problems', description=description) as bar:
            for number, path in enumerate(paths):
                part = items[number * size : (number + 1) * size]
                if not there[number]:
                    if distributed.leaving():
                        raise distributed.Preempted(f'{number} of {len(paths)} parts are sampled')
                    episodes, tokens = make(part, number * size)
                    self._keep(path, episodes, tokens)
                bar.advance(len(part))
        spent = sum(int(p.read_text()) for p in stored.glob('*.tokens'))
        return list(records.read_episodes(stored)), spent

    def _keep(self, path: epath.Path, episodes: Sequence[Episode], tokens: int) -> None:
        """Writes a part: its token count first, because the part's file says that it is whole."""
        told = b''.join(map(records.to_json, episodes))
        distributed.check_same(f'the episodes of {path.parent.parent.name}/{path.name}', told)

        def write() -> None:
            json_files.check_there(self.workdir / CONFIG)
            json_files.write_text(path.with_suffix('.tokens'), str(tokens))
            records.write_episodes(path, episodes)

        distributed.from_first(write)

    def _check_given(self) -> None:
        for name, path, model in (
            ('base.checkpoint', self.settings.base.checkpoint, self.settings.model),
            ('critic.checkpoint', self.settings.critic.checkpoint, None),
        ):
            if path:
                self._check_model(name, path, model)

    def _check_model(self, name: str, path: str, model: ModelConfig | None) -> None:
        """Raises ValueError unless a saved model is there, of this shape if one is given."""
        folder = from_root(path)
        if not folder.is_dir():
            raise ValueError(f"{name}={path!r}: {folder} is no folder; give a saved model, or ''")
        checkpoint.check_model(
            folder,
            model or checkpoint.saved_config(folder, self.settings.model),
            tokenizer_fingerprint=self.tokenizer.fingerprint,
        )

    @property
    def annotator_path(self) -> epath.Path:
        """What the annotator of critique data is read from."""
        return from_root(self.settings.critique.annotator_path)

    def _check_annotator(self) -> None:
        s, path = self.settings.critique, self.annotator_path
        given = f'critique.annotator_path={s.annotator_path!r}'
        if s.annotator in ('oracle', 'monte_carlo') and s.annotator_path:
            raise ValueError(
                f"{given} is not read by critique.annotator={s.annotator!r}: set it to ''"
            )
        if s.annotator == 'file':
            if not s.annotator_path or not path.exists():
                raise ValueError(f'{given} is not there: give a file of critiques')
            oracle.from_file(path)
        if s.annotator == 'model':
            if not s.annotator_path:
                raise ValueError(f'{given}: give a saved model')
            self._check_model('critique.annotator_path', s.annotator_path, None)

    def _check_config(self, written: epath.Path, what: str) -> None:
        if not written.exists():
            return
        was = json_files.at(str(written), build.from_json, written.read_text())
        now = build.from_json(self._config)
        changed = build.explain_diff(was, now, ignoring=MAY_CHANGE)
        if changed:
            raise ValueError(
                f'{what} with another config: {changed}; take a new --workdir or the old value'
            )


def link_tree(source: os.PathLike, folder: epath.Path) -> None:
    """The files of a folder as hard links in another, whole or not at all; without its config.

    The first process makes them; all wait for it.
    """

    def link() -> None:
        if folder.exists():
            return
        beside = folder.with_name(f'{folder.name}.{os.getpid()}.writing')
        left_out = shutil.ignore_patterns(CONFIG)
        shutil.copytree(source, beside, copy_function=os.link, ignore=left_out)
        beside.rename(folder)

    distributed.from_first(link)


def from_root(path: str) -> epath.Path:
    """A path of a config: in a bucket, or relative to the project."""
    found = epath.Path(path)
    return found if json_files.is_remote(found) else epath.Path(build.ROOT) / found


def write_json(path: epath.Path, value: Any) -> None:
    json_files.write_text(path, json.dumps(value, indent=1) + '\n')


def read_json(path: epath.Path) -> Any:
    """Raises ValueError, naming the file, where it holds no JSON."""
    return json_files.at(str(path), json_files.parse_object, path.read_text())
