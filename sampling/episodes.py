"""Two-player episodes: attempt -> critique -> refinement, every turn kept as sampled."""

import dataclasses
from collections.abc import Sequence

from elenchus.data.critiques import grammars as critique_lib
from elenchus.data.grading import answers
from elenchus.data.grading.judge import Judge
from elenchus.data.records import Episode, Problem, Turn
from elenchus.data.text.chat import Chat
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.engine import Completion, Engine, Request
from elenchus.sampling.engine.sampling_methods import Method


@dataclasses.dataclass(frozen=True)
class Sampler:
    """An engine that writes turns of a conversation."""

    engine: Engine
    chat: Chat
    max_tokens: dict[str, int]  # by role

    def parking(self) -> 'Sampler':
        """This sampler with an engine that parks what it samples, for later turns to go on from."""
        return dataclasses.replace(self, engine=self.engine.parking())

    def turns(
        self,
        model: Transformer,
        conversations: Sequence[Sequence[Turn]],
        role: str,
        *,
        num_samples: int,
        method: Method,
        seed: int,
        first_id: int | Sequence[int],
    ) -> list[list[Turn]]:
        """`num_samples` turns of `role` after each conversation; noise by first_id + index.

        A sequence gives the first id of each conversation, which then draws the same noise in
        whatever company it is.
        """
        opened = [Turn(role, self.chat.header(role), ())] * len(conversations)
        return self.continued(
            model,
            conversations,
            opened,
            num_samples=num_samples,
            method=method,
            seed=seed,
            first_id=first_id,
        )

    def continued(
        self,
        model: Transformer,
        conversations: Sequence[Sequence[Turn]],
        openings: Sequence[Turn],
        *,
        num_samples: int,
        method: Method,
        seed: int,
        first_id: int | Sequence[int],
    ) -> list[list[Turn]]:
        """`num_samples` completions of each opening, a turn begun after its conversation.

        The opening's tokens and log-probabilities are kept; where an opening that has tokens was
        not sampled, its completions have no log-probabilities either. An opening counts towards
        its role's max_tokens. Raises ValueError where it leaves none.
        """
        firsts = first_id
        if isinstance(first_id, int):
            firsts = range(first_id, first_id + len(openings) * num_samples, num_samples)
        requests, begun = [], []
        for turns, opening, first in zip(conversations, openings, firsts, strict=True):
            prompt = (*self.chat.context(turns, opening.role), *opening.tokens)
            room = self.max_tokens[opening.role] - len(opening.tokens)
            requests += [Request(first + j, prompt, room) for j in range(num_samples)]
            begun += [opening] * num_samples
        completions = self.engine.generate(model, requests, method=method, seed=seed)
        made = [self._joined(o, c) for o, c in zip(begun, completions, strict=True)]
        return [made[i : i + num_samples] for i in range(0, len(made), num_samples)]

    def _joined(self, opening: Turn, completion: Completion) -> Turn:
        known = len(opening.logprobs) == len(opening.tokens)
        return self.chat.sampled_turn(
            opening.role,
            (*opening.tokens, *completion.tokens),
            (*opening.logprobs, *completion.logprobs) if known else (),
        )

    def text(self, turn: Turn) -> str | None:
        """What a turn says; None where it was cut off before its end token."""
        return self.chat.text(turn) if self.chat.is_finished(turn) else None


def attempts(
    sampler: Sampler,
    actor: Transformer,
    problems: Sequence[Problem],
    *,
    judge: Judge,
    num_samples: int,
    method: Method,
    seed: int,
    first_id: int,
) -> list[Episode]:
    """`num_samples` judged attempts at each problem, those of one problem together."""
    questions = [sampler.chat.question_turns(problem.question) for problem in problems]
    made = sampler.turns(
        actor,
        questions,
        'attempt',
        num_samples=num_samples,
        method=method,
        seed=seed,
        first_id=first_id,
    )
    asked = [p for p in problems for _ in range(num_samples)]
    told = [
        (*question, turn) for question, turns in zip(questions, made, strict=True) for turn in turns
    ]
    facts = judge([(p, sampler.text(turns[-1])) for p, turns in zip(asked, told, strict=True)])
    return [
        Episode(p.id, p.level, turns, fact)
        for p, turns, fact in zip(asked, told, facts, strict=True)
    ]


def critiques(
    sampler: Sampler,
    critic: Transformer,
    episodes: Sequence[Episode],
    *,
    grammar: critique_lib.Grammar,
    method: Method,
    seed: int,
    first_id: int,
) -> list[Episode]:
    """Each episode with one critique more, and what the critique says.

    `verdict` is True or False, or None where the critique cannot be parsed: never taken as right.
    """
    made = sampler.turns(
        critic,
        [e.turns for e in episodes],
        'critique',
        num_samples=1,
        method=method,
        seed=seed,
        first_id=first_id,
    )
    result = []
    for episode, (turn,) in zip(episodes, made, strict=True):
        critique = grammar.parse(sampler.chat.text(turn))
        verdict = critique.final_correct if sampler.chat.is_finished(turn) else None
        said = {'verdict': verdict, 'located': _located(critique, verdict)}
        result.append(
            dataclasses.replace(
                episode, turns=(*episode.turns, turn), outcome=episode.outcome | said
            )
        )
    return result


def refinements(
    sampler: Sampler,
    actor: Transformer,
    episodes: Sequence[Episode],
    problems: Sequence[Problem],
    *,
    judge: Judge,
    num_samples: int,
    method: Method,
    seed: int,
    first_id: int | Sequence[int],
) -> list[list[Episode]]:
    """`num_samples` judged refinements of each criticised episode; problems[i] is episode i's."""
    made = sampler.turns(
        actor,
        [e.turns for e in episodes],
        'refinement',
        num_samples=num_samples,
        method=method,
        seed=seed,
        first_id=first_id,
    )
    pairs = [
        (problem, sampler.text(turn))
        for problem, turns in zip(problems, made, strict=True)
        for turn in turns
    ]
    facts = iter(judge(pairs))
    return [
        [
            dataclasses.replace(
                episode,
                turns=(*episode.turns, turn),
                outcome=episode.outcome | {f'refined_{k}': v for k, v in next(facts).items()},
            )
            for turn in turns
        ]
        for episode, turns in zip(episodes, made, strict=True)
    ]


def refined_well(sampler: Sampler, episode: Episode, problem: Problem) -> bool:
    """Whether a judged refinement is right and no bare answer: METHODS 2, shortcut barrier."""
    refined, attempt = (sampler.chat.text(episode.turn(r)) for r in ('refinement', 'attempt'))
    return episode.outcome['refined_correct'] and answers.passes_barrier(
        refined, problem.solution, attempt
    )


def sampled_tokens(episodes: Sequence[Episode]) -> int:
    """Tokens that were generated for these episodes."""
    return sum(len(turn.logprobs) for episode in episodes for turn in episode.turns)


def _located(critique: critique_lib.Critique, verdict: bool | None) -> int | None:
    """The line that a critique finds wrong first; the answer's line where only that is wrong."""
    first = critique_lib.first_error(critique)
    return len(critique.steps) if first is None and verdict is False else first
