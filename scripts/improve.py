"""Self-improvement in rounds: explore, curate, train, evaluate; one stage for each explorer.

python -m scripts.improve --config configs/lab.py --workdir runs/lab --stage vanilla

A stage's folder holds round-1/, round-2/, ...: what was found (explored/), what is trained on
(episodes/), checkpoints, the round's model and test/. A round with a summary is complete.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from data import records
from data.records import Episode, Example, Problem, Turn
from model.transformer import Transformer
from sampling import curate, tails
from sampling.explore import EXPLORERS, explore
from sampling.search import Players, as_attempt
from sampling.strategies import score_steps
from scripts import command, evaluate
from scripts import train as train_stages
from scripts.workspace import Workspace, link_tree
from train import checkpoint, supervised
from train.advantages import over_tokens

Outcome = tuple[list[Episode], int]
"""Episodes, and the tokens that were sampled for them."""


def improve(workspace: Workspace, folder: pathlib.Path, *, explorer: str) -> dict:
    """Rounds of one explorer; tells the last one's figures, and all of them in `rounds`.

    All explorers start from the same actor and share the noise of a round.
    """
    start = workspace.stage_folder('actor') / 'model'
    rounds = []
    for number in range(1, workspace.settings.improve.num_rounds + 1):
        place = folder / f'round-{number}'
        body = functools.partial(one_round, explorer=explorer, number=number, start=start)
        rounds.append(workspace.complete(place, body))
        start = place / 'model'
    if checkpoint.saved_adaptation(start) is None:
        link_tree(start, folder / 'model')
    else:  # written anew: their base is another way off
        workspace.save_model(folder, workspace.load_checkpoint(start))
    totals = {
        name: sum(told[name] for told in rounds)
        for name in ('tokens_sampled', 'tokens_trained', 'tokens_monitored')
    }
    return rounds[-1] | totals | {'rounds': rounds}


def one_round(
    workspace: Workspace, folder: pathlib.Path, *, explorer: str, number: int, start: pathlib.Path
) -> dict:
    """One round from the actor saved at `start`; leaves a new one in the folder."""
    s = workspace.settings.improve
    actor = workspace.load_checkpoint(start)
    players = workspace.players(workspace.sampler(), actor, workspace.load_model('critic'))
    noise = workspace.seed(f'improve/{number}' if number > 1 else 'improve')
    explored, tokens = exploration(workspace, folder, players, explorer=explorer, seed=noise)
    kept, for_kept = curated(workspace, folder, players, explored)
    own = response_examples(workspace, kept)
    shown = train_stages.actor_examples(workspace, plain=s.demonstrations)
    told = monitors(workspace, folder, players, explored=explored, kept=kept, own=own)
    source = workspace.model_folder('base') if s.restart == 'base' else start
    trained = workspace.load_to_train(source, s.lora, stage=explorer)
    totals = train_stages.fit(
        workspace, folder, trained, shown + own, settings=s.fit, name=f'round-{number}'
    )
    measured = evaluate.attempts_only(
        workspace, folder, workspace.load_checkpoint(folder / 'model')
    )
    told['exploration']['tokens'] = tokens
    return totals | measured | told | {'tokens_sampled': tokens + for_kept}


# Explore and curate


def exploration(
    workspace: Workspace, folder: pathlib.Path, players: Players, *, explorer: str, seed: int
) -> Outcome:
    """Everything that the explorer finds, in parts."""
    s = workspace.settings.improve

    def make(part: Sequence[Problem], first: int) -> Outcome:
        return explore(
            s.explore,
            players,
            part,
            explorer=explorer,
            seed=seed,
            method=workspace.sampling_method,
            first_id=first * s.explore.ids,
        )

    problems = workspace.train_problems[: s.num_problems]
    return workspace.in_parts(
        folder / 'explored', problems, description=f'explore {explorer}', make=make
    )


def curated(
    workspace: Workspace, folder: pathlib.Path, players: Players, explored: Sequence[Episode]
) -> Outcome:
    """question -> response of what is trained on, with the critic's scores where they weigh it."""
    s = workspace.settings.improve
    rates = curate.success_rates(explored)
    kept = [
        noted(as_attempt(players.sampler, e), solved=rates[e.problem_id])
        for e in curate.curate(explored, s.explore, wrong=s.weighting == 'advantage')
    ]
    if s.weighting == 'keep' or not kept:
        records.write_episodes(folder / 'episodes' / 'part-00000.array_record', kept)
        return kept, 0
    make = functools.partial(scored, workspace, players)
    return workspace.in_parts(folder, kept, description='score', make=make)


def scored(
    workspace: Workspace, players: Players, responses: Sequence[Episode], first: int
) -> Outcome:
    """Responses with the critic's scores of their steps and answer, which cost its critiques."""
    greedy, seed = workspace.greedy_method, workspace.seed('improve') + 3
    judged = score_steps(players, responses, scorer=workspace.scorer(), greedy=greedy, seed=seed)
    tokens = sum(len(episode.turns[-1].tokens) for episode in judged)
    return [dataclasses.replace(e, turns=e.turns[:-1]) for e in judged], tokens


def noted(episode: Episode, **facts) -> Episode:
    return dataclasses.replace(episode, outcome=episode.outcome | facts)


# Weigh


def response_examples(workspace: Workspace, kept: Sequence[Episode]) -> list[Example]:
    """question -> kept response, weighted as the config says."""
    s = workspace.settings.improve
    shares = curate.question_shares(kept) if s.balance == 'question' else [1.0] * len(kept)

    def weights(turn: Turn, *, episode: Episode, share: float) -> np.ndarray:
        return share * response_weights(turn, episode, weighting=s.weighting)

    return [
        workspace.chat.example(
            episode.turns,
            trained=('attempt',),
            last_only=True,
            weights=functools.partial(weights, episode=episode, share=share),
        )
        for episode, share in zip(kept, shares, strict=True)
    ]


def response_weights(turn: Turn, episode: Episode, *, weighting: str) -> np.ndarray:
    """The weight of each token of a response, [len(turn.tokens)].

    'keep' is 1; 'score' the critic's score of the answer; 'steps' its score of the step;
    'advantage' the step's score less that of the step before, of the first less the share of the
    question's attempts that are right: negative where a step makes the response worse.
    """
    if weighting == 'steps':
        return over_tokens(turn.step_scores, turn.step_ends)
    if weighting == 'advantage':
        values = np.diff([episode.outcome['solved'], *turn.step_scores])
        return over_tokens(values, turn.step_ends)
    score = 1.0 if weighting == 'keep' else episode.outcome['score'] or 0.0
    return np.full(len(turn.tokens), score, np.float32)


# Monitor


def monitors(
    workspace: Workspace,
    folder: pathlib.Path,
    players: Players,
    *,
    explored: Sequence[Episode],
    kept: Sequence[Episode],
    own: Sequence[Example],
) -> dict:
    """What the exploration covers and what is kept of it, against the demonstrations.

    Of `num_monitored` responses the perplexity is under the actor that explored.
    """
    s, found = workspace.settings.improve, tails.exploration(explored)
    responses = [e for e in kept if e.outcome['correct']]
    sets = {'kept': own, 'demonstrations': demonstrations(workspace)}
    lengths = {name: [float(e.loss_mask.sum()) for e in some] for name, some in sets.items()}
    told = {
        'exploration': found | {'lengths': tails.histograms(lengths)},
        'problems_solved': found['coverage']['all'],
        'tokens_monitored': 0,
        **tails.kept(responses, explored),
    }
    if s.num_monitored:
        told['exploration']['perplexities'] = perplexities(workspace, players.actor, sets)
        told['exploitation'], told['tokens_monitored'] = exploitation(
            workspace, folder, players, explored
        )
    return told


def demonstrations(workspace: Workspace) -> list[Example]:
    """The actor's SFT data of the form question -> solution."""
    return [
        workspace.chat.example(turns, trained=('attempt',), weights=None, last_only=True)
        for turns in train_stages.actor_conversations(workspace)
        if len(turns) == 2
    ]


def perplexities(workspace: Workspace, actor: Transformer, sets: dict[str, list[Example]]) -> dict:
    count, rows = workspace.settings.improve.num_monitored, workspace.settings.train.rows
    return tails.histograms(
        {
            name: supervised.perplexities(actor, spread(some, count), rows=rows)
            for name, some in sets.items()
        }
    )


def exploitation(
    workspace: Workspace, folder: pathlib.Path, players: Players, explored: Sequence[Episode]
) -> tuple[dict, int]:
    """What the critic's scores pick among the first attempts at the first questions."""
    s = workspace.settings.improve
    first = [e for e in explored if e.outcome['found_by'] == 'attempt']
    episodes, tokens = workspace.in_parts(
        folder / 'scored',
        first[: s.num_monitored * s.explore.num_attempts],
        description='score attempts',
        make=functools.partial(scored, workspace, players),
    )
    return tails.exploitation(episodes), tokens


def spread(items: Sequence, count: int) -> list:
    """At most `count` items, evenly spread over all."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else items


STAGES = {name: functools.partial(improve, explorer=name) for name in EXPLORERS}

if __name__ == '__main__':
    command.run_stage_script(STAGES)
