"""The data types of the pipeline: Problem -> Episode -> Example -> Batch. NumPy and text only.

An Episode is a conversation about a Problem and consists of Turns. An Example is the training
sequence of an episode; examples are packed into a Batch. data/files/episode_files.py stores
episodes.
"""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

ROLES = ('pad', 'question', 'guide', 'attempt', 'critique', 'refinement', 'tool')
"""Roles of tokens. The id of a role in a Batch is its index in this tuple."""

TURN_ROLES = ROLES[1:-1]
"""Roles of turns of a conversation. A turn of the role `tool` stands inside another (ToolTurn)."""

PLAYER_OF_ROLE = types.MappingProxyType(
    {'attempt': 'actor', 'critique': 'critic', 'refinement': 'actor'}
)
"""Role -> the model that writes its turns. No model writes questions and guides."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One question with its reference answer.

    `load` in data/problems/loading.py returns problems.
    """

    id: str  # unique within its source
    question: str
    answer: str  # reference answer, without '####' or \boxed
    solution: str  # reference solution; '' = unknown
    level: int  # difficulty; 0 = unknown
    source: str  # one of problems.loading.SOURCES


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a turn that a model wrote: a line that is not blank."""

    end: int  # index in Turn.tokens one past the step's last token
    score: float | None = None  # the critic's probability that it is correct; None = unknown


@dataclasses.dataclass(frozen=True)
class TurnFacts:
    """Facts about one turn; None = unknown, or the fact does not apply to the turn.

    Every field is a plain JSON value, so that facts can be stored and sent to other processes.
    """

    # Of an attempt or refinement, set by the judge (data/grading/judge.py).
    answer: str | None = None  # canonical final answer; None also if the turn has none
    outcome: str | None = None  # the verifier's, one of grading.verify.Outcome
    correct: bool | None = None  # the final answer is right
    steps_correct: bool | None = None  # every line is right (lab only)
    first_error: int | None = None  # first wrong line (lab only); None also if all are right
    kind: str | None = None  # of the first error: lab.task.MISTAKE_KINDS or FACT (lab only)

    # Of an attempt or refinement, set by the code that samples or scores it.
    origin: str | None = None  # 'attempt', 'refinement', 'reference', or a proposal's name
    passes_barrier: bool | None = None  # more than a bare answer (exploration.with_origin)
    accepted: bool | None = None  # counts as right without a label (exploration.acceptance)
    hinted: bool | None = None  # sampled after a hint that is not in the episode (rl.rollouts)
    replayed: bool | None = None  # sampled in an earlier iteration (rl.replay)
    policy_step: int | None = None  # updates before the weights that wrote it (rl.overlap)
    restarted: bool | None = None  # it continues a prefix; True: of a right response (rl.restarts)
    score: float | None = None  # critic's probability that the answer is right (score_steps)
    num_reached: int | None = None  # first steps that the critique has a line on (score_steps)
    critique_finished: bool | None = None  # the critique that scored it was not cut off
    corrections: int | None = None  # number of lines that a self-talk calls wrong (self_talk)

    # Of a critique. sample_critiques sets the first three; the code that samples refinements, the
    # others. On a response: of the critique that accepted it (exploration.acceptance) or was not
    # followed (rl.actor_episodes).
    verdict: bool | None = None  # of the final answer; None also for a critique without verdict
    located: int | None = None  # first line that it calls wrong; None also if it calls none wrong
    verdict_offsets: tuple[int | None, ...] | None = None  # grammars.Reading.offsets of its text
    helpful: float | None = None  # mean effect of refinements after it, in [-1, 1] (rl.rollouts)
    refinement_successes: int | None = None  # valid refinements after it (stages.critique)
    refinement: str | None = None  # text of the first valid refinement (stages.critique)

    # Of a refinement after a counterfactual critique (test_time.uptake).
    uses_value: bool | None = None  # it uses the critique's false value

    @property
    def is_off_policy(self) -> bool:
        """Whether the turn was sampled by another policy, or behind another prompt."""
        return bool(self.hinted or self.replayed)


@dataclasses.dataclass(frozen=True)
class ToolTurn:
    """A tool's answer to a call: a turn of the role `tool` inside a player's turn.

    Its tokens are among those of the player's turn, and all of them are `forced`. If the template
    has its own form for tools, the first `lead` tokens close the player's message and the last
    `tail` tokens open the next one; a player that quotes the turn does not read them.
    """

    name: str  # of the tool
    outcome: str  # data.tools.answer.ToolOutcome
    start: int  # index in Turn.tokens of its first token
    end: int  # one past its last token
    lead: int = 0
    tail: int = 0

    @property
    def text_span(self) -> tuple[int, int]:
        """Start and end of the tool's text, without `lead` and `tail`."""
        start = min(self.start + self.lead, self.end)
        return start, max(start, self.end - self.tail)


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of a conversation, as token ids.

    `header` opens the turn for the model that writes it and is never trained. Another reader may
    see a different header: text.chat.Chat.render computes it.
    """

    role: str  # one of TURN_ROLES
    header: tuple[int, ...]
    tokens: tuple[int, ...]  # body; ends with the end token unless sampling was cut off
    logprobs: tuple[float, ...] = ()  # the sampler's, one per token; empty if not sampled
    steps: tuple[Step, ...] = ()  # they cover all tokens; empty if no model writes the role
    facts: TurnFacts = TurnFacts()
    forced: tuple[int, ...] = ()  # indices of tokens that were appended, not sampled; not trained
    tools: tuple[ToolTurn, ...] = ()  # turns of tools inside of it, in order
    feedback: tuple[int, ...] = ()  # those of `forced` that came after it (test_time.feedback)

    def __post_init__(self):
        if self.role not in TURN_ROLES:
            raise ValueError(f'unknown Turn.role={self.role!r}; valid: {TURN_ROLES}')
        if self.logprobs and len(self.logprobs) != len(self.tokens):
            raise ValueError(f'{len(self.logprobs)} logprobs for {len(self.tokens)} tokens')

    @property
    def num_sampled(self) -> int:
        """Number of sampled tokens; 0 if the turn was not sampled."""
        return len(self.logprobs) - len(self.forced) if self.logprobs else 0

    def ends_with(self, token: int) -> bool:
        """Returns whether the last token is `token` and does not belong to a tool's turn."""
        is_of_tool = bool(self.tools) and self.tools[-1].end == len(self.tokens)
        return self.tokens[-1:] == (token,) and not is_of_tool

    def is_of_tool(self) -> np.ndarray:
        """Returns a bool array [len(tokens)]: True for tokens of a tool's turn."""
        result = np.zeros(len(self.tokens), bool)
        for tool in self.tools:
            result[tool.start : tool.end] = True
        return result

    @property
    def step_ends(self) -> tuple[int, ...]:
        """The end of each step."""
        return tuple(step.end for step in self.steps)

    @property
    def step_scores(self) -> tuple[float | None, ...]:
        """The score of each step; None where it is unknown."""
        return tuple(step.score for step in self.steps)

    def with_facts(self, **facts) -> 'Turn':
        """Returns the turn with these fields of `facts` changed."""
        return dataclasses.replace(self, facts=dataclasses.replace(self.facts, **facts))


@dataclasses.dataclass(frozen=True)
class EpisodeFacts:
    """Facts about a whole episode; None = unknown, or the fact does not apply to the episode."""

    # How an attempt of critique data was constructed (sampling.critique_data.constructions).
    construction: str | None = None  # 'RG1', 'RG2', 'RG3' (critiques.oracle), 'reference'
    location: int | None = None  # line, from 0, before which there is no mistake
    mistake: str | None = None  # kind of the inserted mistake; RG3 only

    # Set by exploration and self-improvement.
    attempt_index: int | None = None  # attempt that was refined, among all of an exploration
    success_rate: float | None = None  # share of correct first attempts at the question

    # Set by the strategies of sampling.test_time.
    chain: int | None = None  # id of the first attempt of the chain of refinements
    round: int | None = None  # number of the round in the chain, from 1
    tokens: Mapping[str, int] | None = None  # sampled tokens by role
    calls: Mapping[str, int] | None = None  # model calls by role
    sample: int | None = None  # number among the samples of an uptake condition, from 0
    processed: Mapping[str, int] | None = None  # prompt and sampled tokens of these calls, by role

    # Set by train.stages.self_talk_data and train.stages.critique_data.
    rejection: str | None = None  # why a self-talk is not trained on, or an attempt has no critique


@dataclasses.dataclass(frozen=True)
class Episode:
    """A conversation about one problem. Facts about a turn are in `Turn.facts`."""

    problem_id: str
    level: int
    turns: tuple[Turn, ...]
    facts: EpisodeFacts = EpisodeFacts()

    def turn(self, role: str) -> Turn:
        """Returns the last turn of a role. Raises KeyError if no turn has the role."""
        for turn in reversed(self.turns):
            if turn.role == role:
                return turn
        raise KeyError(role)

    @property
    def attempt(self) -> Turn:
        """The last attempt."""
        return self.turn('attempt')

    @property
    def critique(self) -> Turn:
        """The last critique."""
        return self.turn('critique')

    @property
    def response(self) -> Turn:
        """The actor's last turn: the refinement, or the attempt if there is no refinement."""
        for turn in reversed(self.turns):
            if PLAYER_OF_ROLE.get(turn.role) == 'actor':
                return turn
        raise KeyError('response')

    def with_facts(self, **facts) -> 'Episode':
        """Returns the episode with these fields of `facts` changed."""
        return dataclasses.replace(self, facts=dataclasses.replace(self.facts, **facts))

    def with_turn_facts(self, role: str, **facts) -> 'Episode':
        """Returns the episode with these facts of the last turn of a role changed."""
        changed = self.turn(role)
        turns = tuple(t.with_facts(**facts) if t is changed else t for t in self.turns)
        return dataclasses.replace(self, turns=turns)


@dataclasses.dataclass(frozen=True)
class RolloutGroup(Sequence[Episode]):
    """The samples of one problem; as a sequence, its episodes."""

    problem: Problem
    episodes: tuple[Episode, ...]

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index):
        return self.episodes[index]


def group_episodes(problems: Sequence[Problem], episodes: Sequence[Episode]) -> list[RolloutGroup]:
    """Groups episodes by problem: they are in the order of the problems, equally many of each."""
    size = len(episodes) // max(1, len(problems))
    assert size * len(problems) == len(episodes), f'{len(episodes)} of {len(problems)} problems'
    return [
        RolloutGroup(problem, tuple(episodes[i * size : (i + 1) * size]))
        for i, problem in enumerate(problems)
    ]


class Example(NamedTuple):
    """One training sequence; every field is a [T] array and describes `tokens[t]`."""

    tokens: np.ndarray  # int32
    loss_mask: np.ndarray  # float32, 1 on trained tokens
    weights: np.ndarray  # float32, weight or advantage of the token
    old_logprobs: np.ndarray  # float32, of the sampling policy
    ref_logprobs: np.ndarray  # float32, of the reference policy
    steps: np.ndarray  # int32, 1 + index of the step within its turn, 0 outside steps
    turns: np.ndarray  # int32, 1 + index of the turn
    roles: np.ndarray  # int32, index into ROLES


class Batch(NamedTuple):
    """Packed sequences; every field is [B, T] and `x[:, t]` describes `tokens[:, t]`.

    A sequence never crosses rows. Fields up to `roles` are those of Example.
    """

    tokens: np.ndarray
    loss_mask: np.ndarray
    weights: np.ndarray
    old_logprobs: np.ndarray
    ref_logprobs: np.ndarray
    steps: np.ndarray
    turns: np.ndarray
    roles: np.ndarray
    positions: np.ndarray  # int32, counts from 0 within each sequence
    segments: np.ndarray  # int32, 0 on padding, 1, 2, ... on the sequences of a row
