"""Self-improvement in rounds: explore, curate, train, evaluate; one stage for each explorer.

python -m scripts.stage --config configs/lab.py --workdir runs/lab --stage vanilla

A stage's folder holds round-1/, round-2/, ...: what the controller tried (candidates/), what was
found (explored/), what is trained on (episodes/), checkpoints, the round's model, test/ and its
critic/. A round with a summary is complete.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from elenchus.data import records
from elenchus.data.files import json_files
from elenchus.data.records import Episode, Example, Problem, Turn
from elenchus.model.transformer import Transformer
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.exploration import controller, coverage, selection
from elenchus.sampling.exploration.context import Players, as_attempt
from elenchus.sampling.exploration.controller import Knobs
from elenchus.sampling.exploration.explorers import EXPLORERS, explore
from elenchus.sampling.test_time.strategies import score_steps
from elenchus.train import sft
from elenchus.train.checkpoints import checkpoint
from elenchus.train.rl.advantages import over_tokens
from elenchus.train.run.workspace import Workspace, link_tree
from elenchus.train.stages import critique, evaluate
from elenchus.train.stages import supervised as train_stages

Outcome = tuple[list[Episode], int]
"""Episodes, and the tokens that were sampled for them."""


class Start(NamedTuple):
    """The saved models that a round begins with."""

    actor: pathlib.Path
    critic: pathlib.Path


def improve(workspace: Workspace, folder: pathlib.Path, *, explorer: str) -> dict:
    """Rounds of one explorer; tells the last one's figures, and all of them in `rounds`.

    All explorers start from the same actor and share the noise of a round.
    """
    s, rounds = workspace.settings.improve, []
    start = Start(workspace.model_folder('actor'), workspace.model_folder('critic'))
    for number in range(1, s.num_rounds + 1):
        place = folder / f'round-{number}'
        body = functools.partial(one_round, explorer=explorer, number=number, start=start)
        rounds.append(workspace.complete(place, body))
        critic = place / 'critic' / 'model' if s.retrain_critic else start.critic
        start = Start(place / 'model', critic)
    adapted = checkpoint.saved_adaptation(start.actor) is not None
    if adapted or json_files.is_remote(folder):  # its base is another way off; no links in buckets
        workspace.save_model(folder, workspace.load_checkpoint(start.actor))
    else:
        link_tree(start.actor, folder / 'model')
    totals = {
        name: sum(told[name] for told in rounds)
        for name in ('tokens_sampled', 'tokens_trained', 'tokens_monitored')
    }
    return rounds[-1] | totals | {'rounds': rounds}


def one_round(
    workspace: Workspace, folder: pathlib.Path, *, explorer: str, number: int, start: Start
) -> dict:
    """One round from saved players; leaves a new actor in the folder."""
    s = workspace.settings.improve
    actor, critic = (workspace.load_checkpoint(saved) for saved in start)
    players = workspace.players(workspace.sampler(), actor, critic)
    noise = workspace.seed(f'improve/{number}' if number > 1 else 'improve')
    knobs, candidates, for_knobs = controlled(workspace, folder, players, number=number)
    explored, tokens = exploration(
        workspace, folder, players, explorer=explorer, seed=noise, temperature=knobs.temperature
    )
    kept, for_kept = curated(workspace, folder, players, explored, threshold=knobs.threshold)
    own = response_examples(workspace, kept)
    shown = train_stages.actor_examples(workspace, plain=s.demonstrations)
    told = monitors(workspace, folder, players, explored=explored, kept=kept, own=own)
    source = workspace.model_folder('base') if s.restart == 'base' else start.actor
    trained = workspace.load_to_train(source, s.lora, stage=explorer)
    totals = train_stages.fit(
        workspace, folder, trained, shown + own, settings=s.fit, name=f'round-{number}'
    )
    made = workspace.load_checkpoint(folder / 'model')
    measured = evaluate.attempts_only(workspace, folder, made)
    told |= {'knobs': knobs._asdict(), 'candidates': candidates}
    told['exploration']['tokens'] = tokens
    told['tokens_sampled'] = tokens + for_kept + for_knobs
    if s.retrain_critic:
        body = functools.partial(new_critic, actor=made, critic=start.critic, number=number)
        told['retrained_critic'] = workspace.complete(folder / 'critic', body)
        told['tokens_sampled'] += told['retrained_critic']['tokens_sampled']
        totals['tokens_trained'] += told['retrained_critic']['tokens_trained']
    return totals | measured | told


# Control, and the critic's part


def controlled(
    workspace: Workspace, folder: pathlib.Path, players: Players, *, number: int
) -> tuple[Knobs, list[dict], int]:
    """A round's knobs, what every candidate is worth, and the tokens sampled to find out.

    All candidate temperatures are tried on the same questions with the same noise.
    """
    s = workspace.settings.improve
    if s.controller == 'none':
        return Knobs(workspace.settings.sampling.temperature, 0.0), [], 0
    problems = spread(workspace.train_problems[: s.num_problems], s.candidates.num_problems)
    probed, spent = {}, 0
    for temperature in s.candidates.temperatures:
        probed[temperature], tokens = workspace.in_parts(
            folder / 'candidates' / str(temperature),
            problems,
            description=f'temperature {temperature}',
            make=probe(workspace, players, temperature, workspace.seed(f'candidates/{number}')),
        )
        spent += tokens
    told = controller.measures(probed, s.candidates)
    return controller.choose(told), told, spent


def probe(workspace: Workspace, players: Players, temperature: float, seed: int):
    """Problems -> scored attempts at a temperature: a `make` of Workspace.in_parts."""
    count = workspace.settings.improve.candidates.num_attempts

    def make(problems: Sequence[Problem], first: int) -> Outcome:
        made = episode_lib.attempts(
            players.sampler,
            players.actor,
            problems,
            judge=players.judge,
            num_samples=count,
            method=workspace.method_at(temperature),
            seed=seed,
            first_id=first * count,
        )
        judged, tokens = scored(workspace, players, made, first)
        return judged, tokens + episode_lib.sampled_tokens(made)

    return make


def new_critic(
    workspace: Workspace,
    folder: pathlib.Path,
    *,
    actor: Transformer,
    critic: pathlib.Path,
    number: int,
) -> dict:
    """Trains a critic on critiques of the newest actor's attempts, as the stage `critic` does.

    It starts where that stage does or, with restart='last', from the critic so far.
    """
    last = workspace.settings.improve.restart == 'last'
    model = train_stages.critic_start(workspace, critic if last else None)
    told = critique.collect(workspace, folder, actor, workspace.seed(f'critique/{number}'))
    name = f'critic/{number}'
    return told | train_stages.fit_critic(workspace, folder, model, folder / 'episodes', name=name)


# Explore and curate


def exploration(
    workspace: Workspace,
    folder: pathlib.Path,
    players: Players,
    *,
    explorer: str,
    seed: int,
    temperature: float,
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
            method=workspace.method_at(temperature),
            first_id=first * s.explore.ids,
        )

    problems = workspace.train_problems[: s.num_problems]
    return workspace.in_parts(
        folder / 'explored', problems, description=f'explore {explorer}', make=make
    )


def curated(
    workspace: Workspace,
    folder: pathlib.Path,
    players: Players,
    explored: Sequence[Episode],
    *,
    threshold: float,
) -> Outcome:
    """question -> response of what is trained on, with the critic's scores where they are asked.

    With a threshold every different right response is considered, not the first `keep` alone.
    """
    s = workspace.settings.improve
    rates = selection.success_rates(explored)
    rules = dataclasses.replace(s.explore, keep=len(explored)) if threshold else s.explore
    kept = [
        noted(as_attempt(players.sampler, e), solved=rates[e.problem_id])
        for e in selection.curate(explored, rules, wrong=s.weighting == 'advantage')
    ]
    tokens = 0
    if kept and (threshold or s.weighting != 'keep'):
        make = functools.partial(scored, workspace, players)
        place = folder / 'considered'
        kept, tokens = workspace.in_parts(place, kept, description='score', make=make)
        kept = selection.passing(kept, threshold=threshold, keep=s.explore.keep)
    records.write_episodes(folder / 'episodes' / 'part-00000.array_record', kept)
    return kept, tokens


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
    shares = selection.question_shares(kept) if s.balance == 'question' else [1.0] * len(kept)

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
    s, found = workspace.settings.improve, coverage.exploration(explored)
    responses = [e for e in kept if e.outcome['correct']]
    sets = {'kept': own, 'demonstrations': demonstrations(workspace)}
    lengths = {name: [float(e.loss_mask.sum()) for e in some] for name, some in sets.items()}
    told = {
        'exploration': found | {'lengths': coverage.histograms(lengths)},
        'problems_solved': found['coverage']['all'],
        'tokens_monitored': 0,
        **coverage.kept(responses, explored),
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
    return coverage.histograms(
        {
            name: sft.perplexities(actor, spread(some, count), rows=rows)
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
    return coverage.exploitation(episodes), tokens


def spread(items: Sequence, count: int) -> list:
    """At most `count` items, evenly spread over all."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else items


STAGES = {name: functools.partial(improve, explorer=name) for name in EXPLORERS}
