"""Reinforcement of the actor, of the critic, or of both in turn, by outcome and step rewards.

python -m scripts.stage --config configs/lab.py --workdir runs/lab --stage reinforce
"""

import pathlib
from collections.abc import Mapping, Sequence

from elenchus.model.transformer import Transformer
from elenchus.sampling.metrics import critic_metrics
from elenchus.train.config.run_settings import REINFORCED
from elenchus.train.rl import trainer as reinforce_lib
from elenchus.train.rl.rollouts import ROLES, Player
from elenchus.train.run.workspace import Workspace
from elenchus.train.stages import evaluate


def reinforce(workspace: Workspace, folder: pathlib.Path) -> dict:
    """Trains the SFT actor against the SFT critic, and evaluates it alone."""
    players, totals = fit(workspace, folder, 'reinforce')
    workspace.save_model(folder, players['actor'])
    return evaluate.attempts_only(workspace, folder, players['actor']) | totals


def reinforce_critic(workspace: Workspace, folder: pathlib.Path) -> dict:
    """Trains the SFT critic on the SFT actor's attempts, and tells what critique is worth then."""
    players, totals = fit(workspace, folder, 'reinforce_critic')
    workspace.save_model(folder, players['critic'])
    players = {'actor': workspace.load_model('actor')} | players
    return criticised(workspace, folder, players) | totals


def reinforce_both(workspace: Workspace, folder: pathlib.Path) -> dict:
    """Trains actor and critic in turn, each against the other's newest weights."""
    players, totals = fit(workspace, folder, 'reinforce_both')
    for player, model in players.items():
        workspace.save_model(folder / player, model)
    return criticised(workspace, folder, players) | totals


def fit(
    workspace: Workspace, folder: pathlib.Path, stage: str
) -> tuple[dict[Player, Transformer], dict]:
    """(the players that the stage trains, totals)."""
    s, trained = workspace.settings, REINFORCED[stage]
    models = {player: load(workspace, player, trained) for player in ROLES}
    players = workspace.players(workspace.sampler(), **models)
    with workspace.writer(folder) as writer:
        return reinforce_lib.reinforce(
            players,
            workspace.train_problems,
            trained=trained,
            settings=s.reinforce,
            loop=s.train,
            scorer=workspace.scorer(),
            method=workspace.sampling_method,
            folder=folder,
            writer=writer,
            seed=workspace.seed('reinforce'),
        )


def load(workspace: Workspace, player: Player, trained: Sequence[Player]) -> Transformer:
    """The SFT player, where it is trained with the adapters that the config gives it."""
    if player not in trained:
        return workspace.load_model(player)
    given, adapters = workspace.model_folder(player), workspace.settings.reinforce.lora
    return workspace.load_to_train(given, adapters, stage=f'reinforce {player}')


def criticised(
    workspace: Workspace, folder: pathlib.Path, players: Mapping[Player, Transformer]
) -> dict:
    """Accuracy before and after critique on the test problems, and the critic's measures."""
    n, problems = workspace.settings.evaluate.num_attempts, evaluate.test_problems(workspace)
    conditions = evaluate.make_conditions(workspace, players['actor'], players['critic'])
    episodes, tokens = evaluate.parallel(workspace, folder / 'test', conditions)
    groups = [episodes[i : i + n] for i in range(0, len(episodes), n)]
    right = [sum(e.outcome['correct'] for e in group) / n for group in groups]
    refined = [sum(map(critic_metrics.finally_correct, group)) / n for group in groups]
    return {
        'accuracy': {
            'attempt': evaluate.by_level(workspace, problems, right),
            'refined': evaluate.by_level(workspace, problems, refined),
        },
        'critic': critic_metrics.critic(episodes),
        'transitions': critic_metrics.transitions(episodes),
        'tokens_per_answer': {
            'attempt': sum(e.outcome['tokens']['attempt'] for e in episodes) / len(episodes),
            'refined': tokens / len(episodes),
        },
    }


STAGES = {
    'reinforce': reinforce,
    'reinforce_critic': reinforce_critic,
    'reinforce_both': reinforce_both,
}
