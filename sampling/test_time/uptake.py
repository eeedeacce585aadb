"""Uptake: does a refinement follow from the words of its critique, or only from having one?

The attempts that the critic does not call correct are refined again under several conditions. A
condition changes only what stands in the place of the critique; attempts, gate and noise are
shared, so every difference is paired by attempt. Critiques are not sampled again.
"""

import dataclasses
import functools
import random
from collections.abc import Callable, Container, Mapping, Sequence

from elenchus.data.critiques import counterfactual, grammars, oracle
from elenchus.data.critiques.calculator import annotator
from elenchus.data.critiques.counterfactual import Falsified
from elenchus.data.critiques.oracle import ConstructedAttempt, NoCritique
from elenchus.data.records import Episode, Problem, Turn
from elenchus.model.ranges import NonNegativeInt, SampleCount, checked
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.shuffling import other_question
from elenchus.sampling.test_time.feedback import without_feedback
from elenchus.sampling.test_time.strategies import EvaluationSetup, with_cost


@dataclasses.dataclass(frozen=True)
@checked('evaluate.uptake')
class UptakeSettings:
    """Settings of the uptake conditions."""

    num_samples: SampleCount  # responses to each attempt under each condition
    num_problems: NonNegativeInt  # test problems, at most; 0: off


@dataclasses.dataclass(frozen=True)
class Sources:
    """The critiques that conditions choose from: those of the critic, without feedback.

    `episodes` are what `strategies.parallel` returned; the index of an episode is the id of its
    attempt in all mappings.
    """

    setup: EvaluationSetup
    episodes: Sequence[Episode]
    problems: Sequence[Problem]  # of each episode

    @functools.cached_property
    def due(self) -> list[int]:
        """Attempts whose own critique does not call them correct: those that are refined."""
        return [i for i, e in enumerate(self.episodes) if e.critique.facts.verdict is not True]

    @functools.cached_property
    def passed(self) -> list[int]:
        """The other attempts."""
        return sorted(set(range(len(self.episodes))) - set(self.due))

    @functools.cached_property
    def num_due_questions(self) -> int:
        """Number of questions with a due attempt."""
        return len({self.episodes[i].problem_id for i in self.due})

    @property
    def comparable(self) -> bool:
        """True if there is another question's critique for each due attempt."""
        return self.num_due_questions > 1

    @functools.cached_property
    def partners(self) -> dict[int, int]:
        """Another question's attempt for each due one; needs `comparable`."""
        due = [self.episodes[i] for i in self.due]
        others = other_question(due, seed=derive_seed(self.setup.seed, 'uptake', 'shuffled'))
        return {i: self.due[other] for i, other in zip(self.due, others, strict=True)}

    @functools.cached_property
    def fixed(self) -> int:
        """The attempt whose critique the condition `fixed` uses: the first of the lowest level.

        Its question's own attempts get it too, so that all conditions have the same attempts.
        """
        return min(self.due, key=lambda i: (self.episodes[i].level, i))

    @functools.cached_property
    def falsified(self) -> dict[int, Falsified]:
        """Counterfactual critiques, of those due attempts whose critique derives a value."""
        falsified = {i: self._falsify(i) for i in self.due}
        return {i: false for i, false in falsified.items() if false is not None}

    @functools.cached_property
    def blanked(self) -> dict[int, Turn]:
        """Critiques that say only which step is wrong, of those that call one wrong."""
        sampler, grammar = self.setup.models.sampler, self.setup.models.grammar
        texts = {
            i: counterfactual.without_explanation(
                sampler.chat.text(self.critique(i)), grammar=grammar
            )
            for i in self.due
        }
        return {i: sampler.chat.text_turn('critique', t) for i, t in texts.items() if t is not None}

    @functools.cached_property
    def annotated(self) -> dict[int, Turn]:
        """Critiques by who knows the solution, of the attempts that they do not call correct.

        On the lab it is the lab's oracle, in free text the calculator, which has none of some.
        """
        sampler, grammar = self.setup.models.sampler, self.setup.models.grammar
        texts = {i: self._annotate(i) for i in range(len(self.episodes))}
        turns = {
            i: sampler.chat.text_turn('critique', text)
            for i, text in texts.items()
            if not isinstance(text, NoCritique) and grammar.parse(text).final_correct is not True
        }
        room = sampler.max_tokens['critique']
        return {i: turn for i, turn in turns.items() if len(turn.tokens) <= room}

    def critique(self, i: int) -> Turn:
        """Returns the critique of an attempt, without what `evaluate.feedback` appended."""
        return without_feedback(self.setup.models.sampler.chat, self.episodes[i].critique)

    def critiques(self, ids: Sequence[int]) -> list[Turn]:
        """Returns the critiques of these attempts."""
        return [self.critique(i) for i in ids]

    def false_critique(self, i: int) -> Turn:
        """Returns the turn of an attempt's counterfactual critique."""
        return self.setup.models.sampler.chat.text_turn('critique', self.falsified[i].text)

    def texts(self, i: int) -> dict[str, str]:
        """Returns question and attempt as text."""
        attempt = self.setup.models.sampler.chat.text(self.episodes[i].attempt)
        return {'question': self.problems[i].question, 'attempt': attempt}

    def _annotate(self, i: int) -> str | NoCritique:
        problem, attempt = self.problems[i], self.texts(i)['attempt']
        grammar = self.setup.models.grammar
        if grammar is grammars.LAB:
            return oracle.annotate(problem, attempt)
        item = ConstructedAttempt(problem, attempt, 'RG1', None, None)
        grammar = grammar if grammar is grammars.WORKED else grammars.RELEASED
        return annotator.annotate(item, form='first_error', seed=self.setup.seed, grammar=grammar)

    def _falsify(self, i: int) -> Falsified | None:
        sampler = self.setup.models.sampler
        false = counterfactual.falsify(
            sampler.chat.text(self.critique(i)),
            grammar=self.setup.models.grammar,
            rng=random.Random(derive_seed(self.setup.seed, 'uptake', 'falsify', i)),
            avoid='\n'.join(self.texts(i).values()),
            question=self.problems[i].question,
        )
        if false is None:
            return None
        # The engine has room for critiques up to this length, and a number can grow.
        turn = sampler.chat.text_turn('critique', false.text)
        return false if len(turn.tokens) <= sampler.max_tokens['critique'] else None


@dataclasses.dataclass(frozen=True)
class Condition:
    """One way to fill the critique's place.

    `critiques` returns the turn in the critique's place by attempt, for the attempts that are
    sampled; None is no such turn. The others keep the answer that they have under `others`.
    """

    meaning: str  # for tables
    critiques: Callable[[Sources], Mapping[int, Turn | None]]
    role: str = 'refinement'  # of the sampled turn
    others: str = 'attempt'  # the attempt, or another condition


CONDITIONS: Mapping[str, Condition] = {
    'own': Condition(
        'its own critique', lambda s: dict(zip(s.due, s.critiques(s.due), strict=True))
    ),
    'shuffled': Condition(
        "another question's critique, of the same level",
        lambda s: dict(zip(s.partners, s.critiques(list(s.partners.values())), strict=True)),
    ),
    'fixed': Condition('one critique for all', lambda s: dict.fromkeys(s.due, s.critique(s.fixed))),
    'counterfactual': Condition(
        'its own critique with a false value',
        lambda s: {i: s.false_critique(i) for i in s.falsified},
        others='own',
    ),
    'blanked': Condition(
        'its own critique without the words on the wrong step',
        lambda s: s.blanked,
        others='own',
    ),
    'fresh_attempt': Condition(
        'the verdict alone: another attempt', lambda s: dict.fromkeys(s.due), role='attempt'
    ),
    'no_critique': Condition('no critique', lambda s: dict.fromkeys(s.due)),
    'always': Condition(
        'its own critique, whatever the verdict',
        lambda s: dict(zip(s.passed, s.critiques(s.passed), strict=True)),
        others='own',
    ),
    'annotated': Condition('the critique of who knows the solution', lambda s: s.annotated),
}
"""Name -> condition. Those with `others='own'` differ from it only where they sample."""


def sample_condition(
    name: str, sources: Sources, *, ids: Container[int], num_samples: int
) -> tuple[list[Episode], int]:
    """Samples a condition `num_samples` times for each of its attempts in `ids`.

    Returns one episode per attempt and sample, with the facts `chain` (the attempt) and `sample`
    (its number), and the number of sampled tokens. Only the last turn of an episode is new; it
    alone has log-probabilities.
    """
    condition, chat = CONDITIONS[name], sources.setup.models.sampler.chat
    turns = {i: turn for i, turn in condition.critiques(sources).items() if i in ids}
    groups = _respond(sources, condition, turns, num_samples=num_samples)
    sampled = [
        with_cost(chat, episode).with_facts(chain=i, sample=number)
        for i, group in zip(turns, groups, strict=True)
        for number, episode in enumerate(group)
    ]
    if name == 'counterfactual':
        sampled = [_with_uptake(sources, episode) for episode in sampled]
    return sampled, episode_lib.sampled_tokens(sampled)


def _respond(
    sources: Sources, condition: Condition, turns: Mapping[int, Turn | None], *, num_samples: int
) -> list[list[Episode]]:
    """Samples and judges responses for each attempt, after the turn in the critique's place."""
    setup, n = sources.setup, num_samples
    models, problems = setup.models, [sources.problems[i] for i in turns]
    # Ids are those of the attempts: in every condition an attempt's samples have the same noise.
    seed = derive_seed(setup.seed, 'uptake')
    options = {
        'judge': models.judge,
        'spec': SampleSpec(n, setup.method, seed, [i * n for i in turns]),
    }
    if condition.role == 'attempt':
        fresh = episode_lib.sample_attempts(models.sampler, models.actor, problems, **options)
        return [fresh[i : i + n] for i in range(0, len(fresh), n)]
    conversations = [_conversation(sources, i, turn) for i, turn in turns.items()]
    return episode_lib.sample_refinements(
        models.sampler, models.actor, conversations, problems=problems, **options
    )


def _conversation(sources: Sources, i: int, critique: Turn | None) -> Episode:
    """Returns question, attempt and the turn in the critique's place, as turns without a cost."""
    episode, chat = sources.episodes[i], sources.setup.models.sampler.chat
    if critique is None and chat.template.user is not None:
        # A family's template cannot render two turns of one player in a row.
        critique = chat.text_turn('critique', '')
    turns = [turn for turn in episode.turns if turn.role in ('question', 'attempt')]
    turns += [] if critique is None else [critique]
    free = tuple(dataclasses.replace(turn, logprobs=()) for turn in turns)
    return Episode(episode.problem_id, episode.level, free)


def _with_uptake(sources: Sources, episode: Episode) -> Episode:
    """Adds to a refinement whether it uses the false value of its critique."""
    i, models = episode.facts.chain, sources.setup.models
    text = models.sampler.chat.text(episode.response)
    uses_value = counterfactual.uses_value(
        text, sources.falsified[i], grammar=models.grammar, **sources.texts(i)
    )
    return episode.with_turn_facts('refinement', uses_value=uses_value)
