"""The data of self-talk: criticised attempts, corrected from their first wrong line on.

A talk begins with an attempt and its critique. Where a line is called wrong, the actor writes its
refinement from the right lines before it on, and the run's annotator criticises that, until the
answer is right.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from elenchus.data.critiques import oracle
from elenchus.data.critiques import self_talk as talk_lib
from elenchus.data.critiques.self_talk import Said
from elenchus.data.records import Episode, Example, Problem, Turn
from elenchus.model.transformer import Transformer
from elenchus.sampling.critique_data import constructions
from elenchus.sampling.episodes import Sampler
from elenchus.train.rl.advantages import over_tokens
from elenchus.train.run.workspace import Workspace
from elenchus.train.stages import critique


@dataclasses.dataclass(frozen=True)
class Talk:
    """A conversation so far: what is said up to the first line that is wrong still.

    `episode` ends with the attempt and the critique that said it last. `left_out` is the reason
    why nothing comes of it.
    """

    episode: Episode
    problem: Problem
    said: tuple[Said, ...] = ()
    corrections: int = 0
    left_out: str | None = None
    done: bool = False

    @property
    def open(self) -> bool:
        return not self.done and self.left_out is None


def conversation(workspace: Workspace, actor: Transformer):
    """Criticised episodes -> their self-talk as attempts: a `make` of Workspace.in_parts.

    The outcome tells `corrections`, and why a talk is `left_out`: 'unread', a line without a clear
    verdict; 'contradicted', verdicts that go against the truth or against each other; 'cut_off';
    'too_long'; 'never_right', after all the rounds.
    """
    s, seed = workspace.settings.self_talk, workspace.seed('self_talk')
    known = {problem.id: problem for problem in workspace.train_problems}

    def make(episodes: Sequence[Episode], first: int) -> tuple[list[Episode], int]:
        sampler = critique.metered(workspace)
        talks = [go_on(workspace, Talk(e, known[e.problem_id]), e) for e in episodes]
        for number in range(s.num_rounds):
            chosen = [i for i, talk in enumerate(talks) if talk.open]
            if not chosen:
                break
            ids = [first + i for i in chosen]
            noise = seed + number * 8
            begun = [talks[i] for i in chosen]
            refined = refine(workspace, sampler, actor, begun, seed=noise, ids=ids)
            annotator = critique.annotator(workspace, actor, noise)(sampler, first)
            for i, talk in zip(chosen, criticise(workspace, annotator, refined), strict=True):
                talks[i] = talk
        return [finished(workspace, talk) for talk in talks], sampler.engine.tokens

    return make


def go_on(workspace: Workspace, talk: Talk, criticised: Episode) -> Talk:
    """The talk with what the critique of a whole attempt says from its last right line on."""
    chat, grammar = workspace.chat, workspace.grammar
    attempt, told = (chat.text(turn) for turn in criticised.turns[-2:])
    lines = talk_lib.told(attempt, grammar.parse(told), grammar)
    if lines is None:
        return dataclasses.replace(talk, left_out='unread')
    right = len(right_lines(talk, workspace))
    ends_right = talk_lib.judged(lines[-1], grammar)
    if len(lines) <= right or (ends_right and not criticised.outcome['correct']):
        return dataclasses.replace(talk, left_out='contradicted')
    return dataclasses.replace(
        talk,
        episode=criticised,
        said=(*talk.said, *lines[right:]),
        corrections=talk.corrections + (not ends_right),
        done=bool(ends_right),
    )


def right_lines(talk: Talk, workspace: Workspace) -> list[str]:
    grammar = workspace.grammar
    return [said.line for said in talk.said if talk_lib.judged(said, grammar)]


def refine(
    workspace: Workspace,
    sampler: Sampler,
    actor: Transformer,
    talks: Sequence[Talk],
    *,
    seed: int,
    ids: Sequence[int],
) -> list[Talk]:
    """Talks whose episode is a judged refinement that begins with the talk's right lines."""
    grammar = workspace.grammar
    begun = [talk_lib.joined(right_lines(talk, workspace), grammar) for talk in talks]
    openings = [
        constructions.opening(workspace.chat, 'refinement', text.split('\n') if text else [])
        for text in begun
    ]
    fits = [room(workspace, t.episode.turns, o) for t, o in zip(talks, openings, strict=True)]
    made = sampler.continued(
        actor,
        [t.episode.turns for t, fit in zip(talks, fits, strict=True) if fit],
        [o for o, fit in zip(openings, fits, strict=True) if fit],
        num_samples=1,
        method=workspace.sampling_method,
        seed=seed,
        first_id=[i for i, fit in zip(ids, fits, strict=True) if fit],
    )
    turns = iter(turn for (turn,) in made)
    return [
        refined(workspace, sampler, talk, next(turns))
        if fit
        else dataclasses.replace(talk, left_out='too_long')
        for talk, fit in zip(talks, fits, strict=True)
    ]


def room(workspace: Workspace, turns: Sequence[Turn], opening: Turn) -> bool:
    """Whether a refinement that is begun like this fits the engine's shapes."""
    s = workspace.settings.sampling
    prompt = len(workspace.chat.context(turns, 'refinement'))
    return (
        len(opening.tokens) < s.refinement_tokens
        and prompt + len(opening.tokens) <= s.engine.prompt_buckets[-1]
        and prompt + s.refinement_tokens <= s.engine.max_length
    )


def refined(workspace: Workspace, sampler: Sampler, talk: Talk, turn: Turn) -> Talk:
    """The talk with the refinement as its episode's attempt, not criticised yet."""
    text = sampler.text(turn)
    if text is None:
        return dataclasses.replace(talk, left_out='cut_off')
    (facts,) = workspace.judge([(talk.problem, text)])
    question = workspace.chat.question(talk.problem.question)
    turns = (*question, workspace.chat.written('attempt', text))
    return dataclasses.replace(
        talk, episode=dataclasses.replace(talk.episode, turns=turns, outcome=facts)
    )


def criticise(
    workspace: Workspace, annotator: oracle.Annotator, talks: Sequence[Talk]
) -> list[Talk]:
    """Talks that go on with what the annotator says of their refinements."""
    chat = workspace.chat
    asked = [
        oracle.Path(t.problem, chat.text(t.episode.turns[-1]), 'RG1', None, None)
        for t in talks
        if t.open
    ]
    told = iter(annotator(asked) if asked else [])
    made = []
    for talk in talks:
        text = next(told) if talk.open else None
        if text is not None:
            turns = (*talk.episode.turns, chat.written('critique', text))
            talk = go_on(workspace, talk, dataclasses.replace(talk.episode, turns=turns))
        elif talk.open:
            talk = dataclasses.replace(talk, left_out='unread')
        made.append(talk)
    return made


def finished(workspace: Workspace, talk: Talk) -> Episode:
    """question -> the whole talk, as an attempt."""
    left_out = 'never_right' if talk.open else talk.left_out
    text = talk_lib.join(talk.said, workspace.grammar)
    turn = workspace.chat.written('attempt', text)
    if left_out is None and len(turn.tokens) > workspace.settings.self_talk.tokens:
        left_out = 'too_long'
    turns = (*workspace.chat.question(talk.problem.question), turn)
    told = {'left_out': left_out, 'corrections': talk.corrections}
    return Episode(talk.problem.id, talk.problem.level, turns, told)


def example(workspace: Workspace, talk: Episode) -> Example:
    """question -> talk; lines that it calls wrong weigh nothing unless they are learnt too."""

    def weights(turn: Turn) -> np.ndarray:
        mistakes = talk_lib.mistakes(workspace.chat.text(turn), workspace.grammar)
        return over_tokens([0.0 if wrong else 1.0 for wrong in mistakes], turn.step_ends)

    return workspace.chat.example(
        talk.turns,
        trained=('attempt',),
        weights=None if workspace.settings.self_talk.learn_mistakes else weights,
        last_only=True,
    )
