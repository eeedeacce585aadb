"""Runs for the tests of the episode browser: episodes of every kind, in all places of a run."""

import json

from elenchus.data import records
from elenchus.data.files import episode_files
from elenchus.data.records import Episode, EpisodeFacts, Step, Turn, TurnFacts
from elenchus.data.text import tokenizer
from elenchus.train.config import build
from elenchus.train.report.browser import chunks

WORDS = tokenizer.lab_tokenizer()
QUESTION = 'eve 7 ; ben : eve - 4 ; ben ?'
ATTEMPT = ['ben : eve 7 - 4 = 3 ; ben 3\n', ' #### 3']
REFINEMENT = ['ben : eve 7 - 4 = 3 ; ben 3\n', ' #### 4']
CRITIQUE = 'ben : eve - 4 ; 7 - 4 = 3 ; correct\n answer : ben 3 - 3 = 0 ; wrong'
LEVELS = (1, 2, 10)


def parse_script(script):
    """Returns the name and the value of a file of data; the inverse of `chunks.to_script`."""
    body = script.removeprefix(f'{chunks.FUNCTION}(').removesuffix(');\n')
    name, value = json.loads(f'[{body}]')
    return name, value


def model_turn(role, lines, *, sampled=True, cut=False, scores=None, **facts) -> Turn:
    """A turn of these lines, with log-probabilities if it is sampled; `cut`: without its end."""
    ids, steps = [], []
    for line, score in zip(lines, scores or [None] * len(lines), strict=True):
        ids += WORDS.encode(line)
        steps.append(Step(len(ids), score))
    ids += [] if cut else [WORDS.eos_id]
    steps[-1] = Step(len(ids), steps[-1].score)
    logprobs = tuple(-0.125 * n for n in range(len(ids))) if sampled else ()
    return Turn(role, (5,), tuple(ids), logprobs, tuple(steps), TurnFacts(**facts))


def make_episode(
    problem, *, level=1, before=True, after=None, verdict=None, score=None, error=None, cut=False
) -> Episode:
    """An episode; without `after` it has no refinement, without `verdict` no critique."""
    known = before is not None
    turns = [
        Turn('question', (4,), tuple(WORDS.encode(QUESTION))),
        model_turn(
            'attempt',
            ATTEMPT,
            cut=cut,
            scores=None if score is None else (0.99, score),
            answer='3' if known else None,
            outcome='right' if before else 'wrong',
            correct=before,
            steps_correct=error is None if known else None,
            first_error=error,
            score=score,
        ),
    ]
    if verdict is not None or after is not None:
        text = CRITIQUE.replace('wrong', 'correct') if verdict else CRITIQUE
        lines = [line + '\n' for line in text.split('\n')]
        located = None if verdict else 1
        turns.append(
            model_turn('critique', lines, verdict=verdict, located=located, verdict_offsets=(1, 2))
        )
    if after is not None:
        turns.append(
            model_turn('refinement', REFINEMENT, answer='4', outcome='right', correct=after)
        )
    return records.Episode(problem, level, tuple(turns), EpisodeFacts(chain=3))


def all_kinds(split='test') -> list[Episode]:
    """Episodes of every transition, verdict and level, known and unknown; two for a question."""
    kinds = [
        (before, after, verdict)
        for before in (True, False)
        for after in (True, False, None)
        for verdict in (True, False, None)
    ]
    return [
        make_episode(
            f'lab/0/{split}/{n // 2}',
            level=LEVELS[n % 3],
            before=before,
            after=after,
            verdict=verdict,
            score=(n % 7) / 6 if verdict is not None else None,
            error=None if before else n % 2,
            cut=n % 5 == 0,
        )
        for n, (before, after, verdict) in enumerate([*kinds, (None, None, None)])
    ]


PLACES = {
    '02-critique/paths': all_kinds('train')[:4],
    '04-evaluate': all_kinds(),
    '04-evaluate/uptake/own': all_kinds()[2:6],
    '05-vanilla/round-1/test': all_kinds(),
    '05-vanilla/round-2/test': all_kinds()[:8],
    '06-reinforce/rollouts/actor/step-00010': all_kinds('train')[:6],
}
"""Path below `stages` -> its episodes."""


def rollout_values(episodes) -> list[dict]:
    """Lines of values.jsonl: rewards, advantages and numbers of the attempt's tokens."""
    return [
        {
            'reward': 0.25 * (n % 3),
            'advantages': {'2': [0.5, -0.25 * n]},
            'tokens': {
                '2': {
                    'trainer': [p + 0.0625 * (n == 1) for p in e.turns[1].logprobs],
                    'weight': [0.5] * len(e.turns[1].tokens),
                }
            },
        }
        for n, e in enumerate(episodes)
    ]


def write_run(workdir, *, places=None, seed=0):
    """Writes a run with these episodes, a config, a tokenizer, metrics and provenance."""
    for place, episodes in (places or PLACES).items():
        folder = workdir / 'stages' / place
        episode_files.write_episodes(folder / 'episodes/part-00000.array_record', episodes)
        if 'rollouts' in place:
            lines = [json.dumps(line) + '\n' for line in rollout_values(episodes)]
            (folder / 'values.jsonl').write_text(''.join(lines))
    stage = workdir / 'stages' / next(iter(places or PLACES)).split('/')[0]
    rows = [{'step': n, 'loss/kl': 0.1 * n, 'loss/total': 1.0} for n in range(1, 21)]
    (stage / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    starts = [{'time': '2026-01-01', 'jax': '1', 'command': 'scripts/run.py --seed=0'}]
    (stage / 'provenance.json').write_text(json.dumps({'starts': starts}))
    (stage / 'summary.json').write_text(json.dumps({'seconds': 2.5, 'tokens_sampled': 10}))
    (stage / 'verifier.json').write_text(json.dumps({'pairs': 3, 'timeout': 0.5}))
    WORDS.save(workdir / 'tokenizer.model')
    config = {'seed': seed, 'train': {'rate': 0.1}, 'tokenizer': {'template': 'elenchus'}}
    (workdir / 'config.json').write_text(build.to_json(config))
    return workdir


def is_put_right(episode) -> bool:
    """Returns whether an attempt is wrong and its refinement right."""
    return episode.attempt.facts.correct is False and bool(episode.response.facts.correct)
