"""Critique at test time: one parallel round, sequential rounds, and an oracle upper bound.

A strategy takes judged attempts, samples critiques and refinements, and returns the resulting
episodes with the number of newly sampled tokens. Turns that an episode already has are not sampled
again. Noise depends on the attempt's id, so strategies share samples: two that refine the same
attempt after the same critique get the same refinement.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence

from elenchus.data.records import Episode, Problem
from elenchus.data.text.chat import Chat
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling import step_scores
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.step_scores import StepScorer
from elenchus.sampling.test_time import gates
from elenchus.sampling.test_time.attribution import question_words
from elenchus.sampling.test_time.feedback import add_feedback


@dataclasses.dataclass(frozen=True)
class EvaluationSetup:
    """Models, sampling and seed shared by all strategies of a comparison.

    Critiques are greedy; refinements are sampled by `method`.
    """

    models: ModelPair
    scorer: StepScorer
    method: Method
    refine: str  # of gates.GATES; 'wrong' also refines after a critique that cannot be parsed
    num_rounds: int  # of critique and refinement; `parallel` is the first
    seed: int
    feedback: str = 'critique'  # what refinements read: the critique, and what a function appends


Strategy = Callable[..., tuple[list[Episode], int]]
"""(setup, judged episodes, their problems, *, first_id) -> (episodes, newly sampled tokens).

Episode i has the id first_id + i. The facts `tokens`, `calls` and `processed` of a returned episode
count by role what all its sampled turns cost, whichever strategy sampled them.
"""


def parallel(
    setup: EvaluationSetup,
    attempts: Sequence[Episode],
    problems: Sequence[Problem],
    *,
    first_id: int,
) -> tuple[list[Episode], int]:
    """Adds to each attempt a critique, step scores and, if `setup.refine` asks, a refinement."""
    ids = range(first_id, first_id + len(attempts))
    return run_round(setup, attempts, problems, ids=ids, number=1, due=_gate(setup, 1))


def sequential(
    setup: EvaluationSetup,
    first_round: Sequence[Episode],
    problems: Sequence[Problem],
    *,
    first_id: int,
) -> tuple[list[Episode], int]:
    """Runs rounds 2 to `num_rounds` of chains; `first_round` is what `parallel` returned.

    Rounds are memoryless: the refinement becomes the attempt, and the next critique sees only the
    question and that attempt. A chain ends when a round brings no refinement. Returns one episode
    per round and chain; its facts have the `round` and the `chain`, which is the id of the chain's
    first attempt.
    """
    sampler = setup.models.sampler
    chains = dict(enumerate(zip(first_round, problems, strict=True), first_id))
    episodes, tokens = [], 0
    for number in range(2, setup.num_rounds + 1):
        active = {i: pair for i, pair in chains.items() if pair[0].turns[-1].role == 'refinement'}
        if not active:
            break
        before, active_problems = zip(*active.values(), strict=True)
        # An earlier round paid for the refinement; here it is an attempt without a cost.
        attempts = [_without_logprobs(episode_lib.as_attempt(sampler, e)) for e in before]
        after, more = run_round(
            setup,
            attempts,
            active_problems,
            ids=list(active),
            number=number,
            due=_gate(setup, number),
        )
        tokens += more
        after = [e.with_facts(chain=i, round=number) for i, e in zip(active, after, strict=True)]
        episodes += after
        chains = dict(zip(active, zip(after, active_problems, strict=True), strict=True))
    return episodes, tokens


def oracle(
    setup: EvaluationSetup,
    episodes: Sequence[Episode],
    problems: Sequence[Problem],
    *,
    first_id: int,
) -> tuple[list[Episode], int]:
    """Adds a critique and a refinement to exactly the attempts that are really wrong.

    An upper bound and not a method, because it uses the reference answers. `episodes` are attempts
    or what `parallel` returned for them. Returns the wrong ones only; the fact `chain` is the
    attempt's id.
    """
    wrong = [i for i, episode in enumerate(episodes) if not episode.attempt.facts.correct]
    ids = [first_id + i for i in wrong]
    refined, tokens = run_round(
        setup,
        [episodes[i] for i in wrong],
        [problems[i] for i in wrong],
        ids=ids,
        number=1,
        due=lambda criticised, problems: [True] * len(criticised),
    )
    return [e.with_facts(chain=i) for i, e in zip(ids, refined, strict=True)], tokens


def run_round(
    setup: EvaluationSetup,
    episodes: Sequence[Episode],
    problems: Sequence[Problem],
    *,
    ids: Sequence[int],
    number: int,
    due: Callable[[Sequence[Episode], Sequence[Problem]], Sequence[bool]],
) -> tuple[list[Episode], int]:
    """Runs one round: a critique of each bare attempt, a refinement of each that is `due`.

    due(criticised, problems) says which of them are. ids[i] selects the noise of episode i, and
    `number` that of the round. Returns all episodes and the number of newly sampled tokens.
    """
    models, current = setup.models, list(episodes)
    # What has a critique keeps it: `oracle` starts from the episodes of `parallel`.
    bare = [i for i, e in enumerate(current) if e.turns[-1].role == 'attempt']
    criticised = episode_lib.sample_critiques(
        models.sampler,
        models.critic,
        [current[i] for i in bare],
        grammar=models.grammar,
        spec=SampleSpec.greedy(setup.method),
    )
    criticised = step_scores.score_steps(models, criticised, scorer=setup.scorer)
    for i, episode in zip(bare, criticised, strict=True):
        current[i] = episode
    criticised = [i for i, e in enumerate(current) if e.turns[-1].role == 'critique']
    flags = due([current[i] for i in criticised], [problems[i] for i in criticised])
    chosen = [i for i, is_due in zip(criticised, flags, strict=True) if is_due]
    refined = _refine(
        setup,
        [current[i] for i in chosen],
        [problems[i] for i in chosen],
        ids=[ids[i] for i in chosen],
        number=number,
    )
    for i, (episode,) in zip(chosen, refined, strict=True):
        current[i] = episode
    tokens = episode_lib.sampled_tokens(current) - episode_lib.sampled_tokens(episodes)
    return [with_cost(models.sampler.chat, episode) for episode in current], tokens


def _refine(
    setup: EvaluationSetup,
    criticised: Sequence[Episode],
    problems: Sequence[Problem],
    *,
    ids: Sequence[int],
    number: int,
) -> list[list[Episode]]:
    """Samples one refinement of each criticised attempt, after its feedback."""
    models = setup.models
    options = {
        'reference': setup.feedback,
        'number': number - 1,
        'attribute': functools.partial(question_words, models, shapes=setup.scorer.shapes),
    }
    # Chains keep their ids over the rounds, so each round needs a seed of its own.
    seed = derive_seed(setup.seed, 'refinement', number)
    return episode_lib.sample_refinements(
        models.sampler,
        models.actor,
        add_feedback(models.sampler, criticised, problems, **options),
        problems=problems,
        judge=models.judge,
        spec=SampleSpec(1, setup.method, seed, ids),
    )


def with_cost(chat: Chat, episode: Episode) -> Episode:
    """Adds `tokens`, model `calls` and `processed` tokens by role to the facts of an episode.

    Processed are the tokens of a call's prompt and those that it sampled. A prompt counts in every
    call that reads it, whatever an engine saves by its prefix cache or by a prefill that samples
    share: the count is of the method and not of the engine. The scoring of a critique reads
    probabilities that its sampling computed, so it adds nothing. A turn without log-probabilities
    was not sampled for this episode and costs nothing.
    """
    tokens, calls = collections.Counter(), collections.Counter()
    for turn in episode.turns:
        if turn.logprobs:
            tokens[turn.role] += turn.num_sampled
            calls[turn.role] += 1
    processed = episode_lib.processed_tokens(chat, episode)
    return episode.with_facts(tokens=dict(tokens), calls=dict(calls), processed=processed)


def _gate(
    setup: EvaluationSetup, number: int
) -> Callable[[Sequence[Episode], Sequence[Problem]], Sequence[bool]]:
    """Returns the test for a refinement in a round that `setup.refine` names."""
    return functools.partial(gates.due, setup.refine, number=number)


def _without_logprobs(episode: Episode) -> Episode:
    """Marks the last turn as sampled elsewhere, so that it is not counted again."""
    *before, last = episode.turns
    return dataclasses.replace(episode, turns=(*before, dataclasses.replace(last, logprobs=())))
