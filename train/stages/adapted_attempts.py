"""Test-time training: attempts of an actor that has just been trained for their question.

For each question that a function chooses, another makes problems like it (texts that the actor may
write), adapters are trained on these, and the question is attempted again with them. Then they are
dropped: the next question starts from the same actor, whose own arrays are never written.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from elenchus.data.batching import packing
from elenchus.data.records import Batch, Episode, Example, Problem, RolloutGroup
from elenchus.data.text.chat import Chat
from elenchus.model import lora, sharding
from elenchus.model.transformer import Transformer
from elenchus.sampling import user_functions
from elenchus.sampling.exploration import making
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.step_scores import ScoreShapes
from elenchus.sampling.test_time.strategies import EvaluationSetup
from elenchus.sampling.writing import Notes, write
from elenchus.train.config.evaluate_settings import WHENS, AdaptSettings, EvaluateSettings
from elenchus.train.input_transforms import make_reader
from elenchus.train.loop import init_train_state, to_device
from elenchus.train.objective import SFT
from elenchus.train.optimizer import make_optimizer
from elenchus.train.run.directory import StageFolder
from elenchus.train.stages.actor import example_of
from elenchus.train.stages.actor_attempts import sample_attempts
from elenchus.train.stages.evaluate_figures import by_level
from elenchus.train.step import IDENTITY, make_train_step

NAME = 'adapted'
MAKE, WHEN = 'evaluate.adapt.make', 'evaluate.adapt.when'


def evaluate_adapted(
    setup: EvaluationSetup,
    groups: Sequence[RolloutGroup],
    *,
    settings: EvaluateSettings,
    stage: StageFolder,
    room: int,
) -> tuple[dict[str, dict], int]:
    """Attempts again what `settings.adapt` chooses; returns {'adapted': figures}, and the tokens.

    `groups` are the plain actor's attempts; a question that is not chosen keeps them. `room` is the
    longest prompt of an attempt. {} if it is off.
    """
    if settings.adapt.make == 'none':
        return {}, 0
    parts, tuner = stage.parts(NAME, groups, description=NAME), None
    for part in parts.missing():
        tuner = tuner or Tuner.of(setup, settings.adapt)
        part.write(*_adapted(setup, tuner, part.items, first=part.first, room=room))
    episodes, num_tokens = parts.read()
    return {NAME: figures(settings, groups, episodes)}, num_tokens


def figures(
    settings: EvaluateSettings, groups: Sequence[RolloutGroup], adapted: Sequence[Episode]
) -> dict:
    """Returns accuracy with adapters, its difference to that without, and the share of questions.

    A question without attempts in `adapted` counts with its plain ones.
    """
    problems = [group.problem for group in groups]
    again: dict[str, list[Episode]] = {}
    for episode in adapted:
        again.setdefault(episode.problem_id, []).append(episode)
    before = [_accuracy(group) for group in groups]
    after = [_accuracy(again.get(group.problem.id, group)) for group in groups]
    return {
        'accuracy': by_level(settings, problems, after),
        'difference': by_level(settings, problems, after, baseline=before),
        'questions': len(again),
        'share': len(again) / len(problems),
    }


def _accuracy(episodes: Sequence[Episode]) -> float:
    return float(np.mean([bool(e.attempt.facts.correct) for e in episodes]))


@dataclasses.dataclass(frozen=True)
class Tuner:
    """Trains adapters of a model on a few examples, from the same start each time."""

    start: Transformer  # with adapters: new ones change nothing, those of an actor are its own
    settings: AdaptSettings
    step: Callable  # one compiled program for each length
    optimizer: object
    shapes: ScoreShapes  # whose lengths rows are padded to

    @classmethod
    def of(cls, setup: EvaluationSetup, settings: AdaptSettings) -> 'Tuner':
        """Returns the tuner of a setup's actor; new adapters are drawn by the setup's seed."""
        actor, fit = setup.models.actor, settings.fit
        seed = derive_seed(setup.seed, NAME)
        if lora.adaptation_of(actor) is None:
            adaptation = lora.Adaptation(settings.lora, '', 0, 'none')
            adapters = lora.init_adapters(actor.config, adaptation, jax.random.key(seed))
            actor = lora.attach(actor, adapters)
        optimizer = make_optimizer(fit.optimizer, num_steps=fit.num_steps)
        step = make_train_step(
            objective=dataclasses.replace(SFT, reweigh=fit.reweigh),
            optimizer=optimizer,
            transform=IDENTITY,
            num_microbatches=1,
            skip_nonfinite=False,
            read=make_reader(fit.read, seed=seed, num_steps=fit.num_steps),
        )
        return cls(actor, settings, step, optimizer, setup.scorer.shapes)

    def tuned(self, examples: Sequence[Example]) -> Transformer:
        """Returns the model with adapters trained on all examples in each step.

        Raises FloatingPointError if a loss or gradient is not finite.
        """
        trained, frozen = lora.split(self.start)
        state, batch = init_train_state(trained, self.optimizer), to_device(self.batch(examples))
        for _ in range(self.settings.fit.num_steps):
            state, metrics = self.step(state, batch, frozen)
        if not float(metrics['grads/finite']):
            loss = float(metrics['loss/total'])
            raise FloatingPointError(f'evaluate.adapt: the loss {loss} or a gradient is not finite')
        return lora.join(state.model, frozen)

    def fits(self, example: Example) -> bool:
        """Returns whether an example is not longer than a row may be."""
        return len(example.tokens) <= self.shapes.lengths[-1]

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Packs examples into as few rows as the mesh allows, of the shortest length that holds.

        What does not fit into rows of the longest length is left out.
        """
        rows = sharding.num_row_parts(sharding.current_mesh())
        for length in self.shapes.lengths:
            packed = packing.Rows(rows, length)
            fit = [len(e.tokens) <= length and packed.add((e,)) for e in examples]
            if all(fit):
                break
        return packing.to_batch([[item[-1] for item in row] for row in packed.items], length=length)


def _adapted(
    setup: EvaluationSetup,
    tuner: Tuner,
    groups: Sequence[RolloutGroup],
    *,
    first: int,
    room: int,
) -> tuple[list[Episode], int]:
    """Returns new attempts at the questions of a part that are chosen, and all tokens sampled.

    The noise is that of the plain attempts. A question for which nothing is made keeps those.
    """
    models, settings, method = setup.models, tuner.settings, setup.method
    before = models.sampler.engine.tokens
    chosen = [i for i, is_due in enumerate(_due(groups, settings)) if is_due]
    examples_of = make_examples(
        models,
        [groups[i].problem for i in chosen],
        settings=settings,
        spec=SampleSpec(1, method, derive_seed(setup.seed, NAME), [first + i for i in chosen]),
        room=room,
    )
    episodes = []
    for i, examples in zip(chosen, examples_of, strict=True):
        examples = [example for example in examples if tuner.fits(example)]
        if examples:
            episodes += sample_attempts(
                models.sampler,
                tuner.tuned(examples),
                [groups[i].problem],
                judge=models.judge,
                method=method,
                seed=setup.seed,
                num_samples=len(groups[i]),
                first=first + i,
            )
    return episodes, models.sampler.engine.tokens - before


def make_examples(
    models: ModelPair,
    problems: Sequence[Problem],
    *,
    settings: AdaptSettings,
    spec: SampleSpec,
    room: int,
) -> list[list[Example]]:
    """Returns the examples that a function of MAKES makes of each problem: question -> solution.

    Nobody has checked the solutions. Pairs without a text on both sides are left out.
    """
    function = making.MAKES.find(settings.make, MAKE)
    items = [(problem, Notes()) for problem in problems]
    results = write(models, function, items, spec=spec, room=room, field=MAKE)
    return [_examples(models.sampler.chat, function, result) for result in results]


def _examples(chat: Chat, function: making.Make, result: object) -> list[Example]:
    pairs = making.pairs_of(function, result, field=MAKE)
    texts = [(question.strip(), solution.strip()) for question, solution in pairs]
    return [example_of(chat, *pair) for pair in texts if all(pair)]


def _due(groups: Sequence[RolloutGroup], settings: AdaptSettings) -> list[bool]:
    """Returns whether each question is chosen; ValueError, naming the function, for no boolean."""
    function = WHENS.find(settings.when, WHEN)
    flags = [function(group) for group in groups]
    for flag in flags:
        if not isinstance(flag, bool | np.bool_):
            user_functions.refuse(function, flag, 'a boolean', field=WHEN)
    return [bool(flag) for flag in flags]
