"""Critique data: flawed and correct paths sampled from the actor, criticised by the annotator.

python -m scripts.critique --config configs/lab.py --workdir runs/lab
"""

import collections
import dataclasses
import pathlib
from collections.abc import Sequence

from data import annotate
from data.records import Episode, Problem
from sampling import episodes as episode_lib
from scripts import command
from scripts.workspace import Workspace


def critique(workspace: Workspace, folder: pathlib.Path) -> dict:
    """Samples attempts at the training problems and writes (question, attempt, critique)."""
    s = workspace.settings.critique
    actor, sampler = workspace.load_model('actor'), workspace.sampler()
    seed = workspace.seed('critique')

    def make(problems: Sequence[Problem], first: int) -> tuple[list[Episode], int]:
        attempts = episode_lib.attempts(
            sampler,
            actor,
            problems,
            judge=workspace.judge,
            num_samples=s.num_attempts,
            method=workspace.sampling_method,
            seed=seed,
            first_id=first * s.num_attempts,
        )
        asked = [p for p in problems for _ in range(s.num_attempts)]
        chosen = choose(list(zip(attempts, asked, strict=True)), correct_share=s.correct_share)
        return (
            [_annotated(workspace, e, p) for e, p in chosen],
            episode_lib.sampled_tokens(attempts),
        )

    problems = workspace.train_problems[: s.num_problems]
    episodes, tokens = workspace.in_parts(folder, problems, description='critique data', make=make)
    kinds = collections.Counter(str(e.outcome.get('kind')) for e in episodes)
    return {
        'episodes': len(episodes),
        'tokens_sampled': tokens,
        'wrong': sum(not e.outcome['correct'] for e in episodes),
        'kinds': dict(kinds),
    }


def choose(pairs: Sequence[tuple[Episode, Problem]], *, correct_share: float):
    """All flawed paths, and as many correct ones as make `correct_share`; no path twice."""
    seen, flawed, right = set(), [], []
    for episode, problem in pairs:
        key = (episode.problem_id, episode.turns[-1].tokens)
        if key not in seen:
            seen.add(key)
            (right if episode.outcome['correct'] else flawed).append((episode, problem))
    allowed = round(len(flawed) * correct_share / (1 - correct_share))
    return flawed + right[:: max(1, len(right) // allowed)][:allowed] if allowed else flawed


def _annotated(workspace: Workspace, episode: Episode, problem: Problem) -> Episode:
    attempt = workspace.chat.text(episode.turn('attempt'))
    turn = workspace.chat.written('critique', annotate.annotate(problem, attempt))
    return dataclasses.replace(
        episode, turns=(*episode.turns, turn), outcome=episode.outcome | {'construction': 'RG1'}
    )


STAGES = {'critique': critique}

if __name__ == '__main__':
    command.run_stage_script(STAGES)
