"""One round of self-improvement, vanilla or with critiques: explore, curate, train, evaluate.

python -m scripts.improve --config configs/lab.py --workdir runs/lab --stage vanilla
"""

import collections
import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from data.records import Episode, Example, Problem, Turn
from sampling.explore import Players, explore
from sampling.strategies import score_steps
from scripts import command, evaluate
from scripts import train as train_stages
from scripts.workspace import Workspace
from train.advantages import over_tokens


def vanilla(workspace: Workspace, folder: pathlib.Path) -> dict:
    """Correct attempts are kept; a wrong attempt is dropped."""
    return improve(workspace, folder, explorer='vanilla')


def critique_in_the_loop(workspace: Workspace, folder: pathlib.Path) -> dict:
    """Wrong attempts are criticised and refined; correct refinements are kept as well."""
    return improve(workspace, folder, explorer='critique_in_the_loop')


def improve(workspace: Workspace, folder: pathlib.Path, *, explorer: str) -> dict:
    """Both explorers start from the same actor and noise; training restarts from the base."""
    s = workspace.settings.improve
    players = workspace.players(
        workspace.sampler(), workspace.load_model('actor'), workspace.load_model('critic')
    )
    problems = workspace.train_problems[: s.num_problems]
    span = s.explore.num_attempts * max(1, s.explore.num_refinements)
    seed = workspace.seed('improve')  # the same for both explorers

    def make(part: Sequence[Problem], first: int) -> tuple[list[Episode], int]:
        kept, tokens = explore(
            s.explore,
            players,
            part,
            explorer=explorer,
            seed=seed,
            method=workspace.sampling_method,
            first_id=first * span,
        )
        return weigh(workspace, players, kept), tokens

    episodes, tokens = workspace.in_parts(
        folder, problems, description=f'explore {explorer}', make=make
    )
    own = [response_example(workspace, episode) for episode in episodes]
    examples = train_stages.actor_examples(workspace) + own
    model = train_stages.base_to_train(workspace, s.lora, stage=explorer)
    totals = train_stages.fit(workspace, folder, model, examples, settings=s.fit)
    measured = evaluate.attempts_only(
        workspace, folder, workspace.load_checkpoint(folder / 'model')
    )
    levels = collections.Counter(str(e.level) for e in episodes)
    found = collections.Counter(e.outcome['found_by'] for e in episodes)
    solved = {e.problem_id for e in episodes}
    return (
        totals
        | measured
        | {
            'kept': len(episodes),
            'kept_by_level': dict(sorted(levels.items())),
            'found_by': dict(found),
            'problems_solved': len(solved) / len(problems),
            'tokens_sampled': tokens,
        }
    )


def weigh(workspace: Workspace, players: Players, kept: Sequence[Episode]) -> list[Episode]:
    """Kept responses with the critic's scores, where the weighting asks for them."""
    if workspace.settings.improve.weighting == 'keep' or not kept:
        return list(kept)
    scored = score_steps(
        players,
        kept,
        scorer=workspace.scorer(),
        greedy=workspace.greedy_method,
        seed=workspace.seed('improve') + 3,
    )
    return [dataclasses.replace(e, turns=e.turns[:-1]) for e in scored]


def response_example(workspace: Workspace, episode: Episode) -> Example:
    """question -> kept response, weighted as the config says."""
    weighting = workspace.settings.improve.weighting
    return workspace.chat.example(
        episode.turns,
        trained=('attempt',),
        last_only=True,
        weights=lambda turn: response_weights(turn, episode, weighting=weighting),
    )


def response_weights(turn: Turn, episode: Episode, *, weighting: str) -> np.ndarray:
    """The weight of each token of a kept response: 1, the critic's score, or its steps' scores."""
    if weighting == 'steps':
        return over_tokens(turn.step_scores, turn.step_ends)
    score = 1.0 if weighting == 'keep' else episode.outcome['score'] or 0.0
    return np.full(len(turn.tokens), score, np.float32)


STAGES = {'vanilla': vanilla, 'critique_in_the_loop': critique_in_the_loop}

if __name__ == '__main__':
    command.run_stage_script(STAGES)
