"""Self-talk: one model attempts, criticises and corrects itself in a single pass (METHODS 6).

python -m scripts.self_talk --config configs/lab.py --workdir runs/lab

Begins with the stage `critique`'s attempts and critiques. Where a line is called wrong, the actor
writes its refinement from the right lines before it on, and the run's annotator goes on from there,
until the answer is right. A model is then trained on the joined text, data/self_talk.py, and
answers the test problems.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from data import annotate, records
from data import self_talk as talk_lib
from data.records import Episode, Problem, Turn
from data.self_talk import Said
from model.transformer import Transformer
from sampling import curves as curve_lib
from sampling import episodes as episode_lib
from sampling import measures, paths, strategies
from sampling.episodes import Sampler
from scripts import command, critique, evaluate
from scripts import train as train_stages
from scripts.improve import spread
from scripts.workspace import Workspace

ARM = 'self-talk majority'
AGAINST = ('majority', 'refined majority')
"""Arms of `evaluate` that self-talk is compared with."""


def self_talk(workspace: Workspace, folder: pathlib.Path) -> dict:
    """Builds the data, trains the base on it, and answers the test problems."""
    s = workspace.settings.self_talk
    criticised = records.read_episodes(workspace.stage_folder('critique') / 'episodes')
    talks, tokens = workspace.in_parts(
        folder / 'talks',
        spread(list(criticised), s.num_examples),
        description='self-talk',
        make=conversation(workspace, workspace.load_model('actor')),
    )
    kept = [talk for talk in talks if talk.outcome['left_out'] is None]
    examples = [
        workspace.chat.example(talk.turns, trained=('attempt',), weights=None, last_only=True)
        for talk in kept
    ]
    fitted = train_stages.fit(
        workspace, folder, workspace.load_model('base'), examples, settings=s.fit, name='self_talk'
    )
    made = workspace.load_checkpoint(folder / 'model')
    reasons = collections.Counter(talk.outcome['left_out'] for talk in talks)
    return (
        answered(workspace, folder, made)
        | fitted
        | {
            'tokens_sampled': tokens,
            'talks': len(talks),
            'left_out': {
                reason: count for reason, count in sorted(reasons.items(), key=str) if reason
            },
            'corrected_talks': sum(talk.outcome['corrections'] > 0 for talk in kept),
        }
    )


# The data


@dataclasses.dataclass(frozen=True)
class Talk:
    """A conversation so far: what is said up to the first line that is wrong still.

    `episode` ends with the attempt and the critique that said it last. `left_out` is the reason
    why nothing comes of it.
    """

    episode: Episode
    problem: Problem
    said: tuple[Said, ...]
    corrections: int
    left_out: str | None
    done: bool

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
        talks = [begin(workspace, e, known[e.problem_id]) for e in episodes]
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


def begin(workspace: Workspace, episode: Episode, problem: Problem) -> Talk:
    talk = Talk(episode, problem, (), 0, None, False)
    return go_on(workspace, talk, episode)


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
        paths.opening(workspace.chat, 'refinement', text.split('\n') if text else [])
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
    workspace: Workspace, annotator: annotate.Annotator, talks: Sequence[Talk]
) -> list[Talk]:
    """Talks that go on with what the annotator says of their refinements."""
    chat = workspace.chat
    asked = [
        annotate.Path(t.problem, chat.text(t.episode.turns[-1]), 'RG1', None, None)
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


# Answers to the test problems


def answered(workspace: Workspace, folder: pathlib.Path, model: Transformer) -> dict:
    """Accuracy, cost and corrections of self-talk, beside what `evaluate` has told.

    The answer is that of the last answer line; the noise is that of all other evaluations.
    """
    s, problems = workspace.settings.evaluate, evaluate.test_problems(workspace)

    def make(part: Sequence[Problem], first: int) -> tuple[list[Episode], int]:
        episodes = answers(workspace, model, part, first)
        return episodes, episode_lib.sampled_tokens(episodes)

    episodes, _ = workspace.in_parts(folder / 'test', problems, description='evaluate', make=make)
    n = s.num_attempts
    groups = [episodes[i : i + n] for i in range(0, len(episodes), n)]
    arm = curve_lib.parallel_arms(groups)['majority']
    right = evaluate.right_answers(problems, groups, {}, {})
    points = [
        curve_lib.point(arm, right, size=size, num_draws=s.num_draws) for size in curve_lib.sizes(n)
    ]
    own = [evaluate.told(workspace, problems, point) for point in points]
    others = evaluated(workspace)
    return {
        'accuracy': {
            'self-talk' if p['size'] == 1 else f'{ARM}@{p["size"]}': p['accuracy'] for p in own
        },
        'tokens_per_answer': {'self-talk': own[0]['tokens']['all']},
        'corrections': float(np.mean([e.outcome['corrections'] for e in episodes])),
        'finished': float(np.mean([e.outcome['finished'] for e in episodes])),
        'spurious': measures.spurious_share(episodes),
        'curves': {ARM: own} | others,
        'equal_tokens': equal_tokens(own, others),
    }


def answers(
    workspace: Workspace, model: Transformer, problems: Sequence[Problem], first: int
) -> list[Episode]:
    """Judged self-talk at test problems from number `first` on, with what it cost."""
    n, grammar = workspace.settings.evaluate.num_attempts, workspace.grammar
    sampler = workspace.sampler()
    limits = sampler.max_tokens | {'attempt': workspace.settings.self_talk.tokens}

    def judge(pairs) -> list[dict]:
        texts = [(problem, text or '') for problem, text in pairs]
        facts = workspace.judge([(p, talk_lib.settled(text, grammar)) for p, text in texts])
        return [
            fact | {'corrections': talk_lib.corrections(text, grammar), 'finished': bool(text)}
            for fact, (_, text) in zip(facts, texts, strict=True)
        ]

    made = episode_lib.attempts(
        dataclasses.replace(sampler, max_tokens=limits),
        model,
        problems,
        judge=judge,
        num_samples=n,
        method=workspace.sampling_method,
        seed=workspace.seed('evaluate'),
        first_id=first * n,
    )
    return [strategies.counted(episode) for episode in made]


def evaluated(workspace: Workspace) -> dict[str, list[dict]]:
    """The curves of AGAINST that the stage `evaluate` has told; {} where it has not been run."""
    if 'evaluate' not in workspace.settings.stages:
        return {}
    path = workspace.stage_folder('evaluate') / 'summary.json'
    if not path.exists():
        return {}
    curves = json.loads(path.read_text(encoding='utf-8'))['curves']
    return {arm: curves[arm] for arm in AGAINST}


def equal_tokens(
    own: Sequence[Mapping], others: Mapping[str, Sequence[Mapping]]
) -> dict[str, dict]:
    """Each point against those of the other arms whose cost is nearest, by level.

    Differences are of means over the same questions, without intervals.
    """
    table = {}
    for point in own:
        cost = point['tokens']['all']
        for arm, points in others.items():
            near = min(points, key=lambda other, cost=cost: abs(other['tokens']['all'] - cost))
            table[f'{ARM}@{point["size"]}, {arm}'] = {
                'against': f'{arm}@{near["size"]}',
                'tokens': [cost, near['tokens']['all']],
                'questions': point['questions'],
                'difference': {
                    level: value[0] - near['accuracy'][level][0]
                    for level, value in point['accuracy'].items()
                },
            }
    return table


STAGES = {'self_talk': self_talk}

if __name__ == '__main__':
    command.run_stage_script(STAGES)
