"""GRPO of the actor, with outcome rewards and the critic's step rewards.

python -m scripts.reinforce --config configs/lab.py --workdir runs/lab
"""

import pathlib

from scripts import command, evaluate
from scripts.workspace import Workspace
from train import reinforce as reinforce_lib


def reinforce(workspace: Workspace, folder: pathlib.Path) -> dict:
    """Trains the SFT actor on-policy and evaluates it alone."""
    s = workspace.settings
    given = workspace.model_folder('actor')
    actor = workspace.load_to_train(given, s.reinforce.lora, stage='reinforce')
    players = workspace.players(workspace.sampler(), actor, workspace.load_model('critic'))
    with workspace.writer(folder) as writer:
        model, totals = reinforce_lib.reinforce(
            players,
            workspace.train_problems,
            settings=s.reinforce,
            loop=s.train,
            scorer=workspace.scorer(),
            method=workspace.sampling_method,
            folder=folder,
            writer=writer,
            seed=workspace.seed('reinforce'),
        )
    workspace.save_model(folder, model)
    return evaluate.attempts_only(workspace, folder, model) | totals


STAGES = {'reinforce': reinforce}

if __name__ == '__main__':
    command.run_stage_script(STAGES)
