"""Names of the stages, and what may be written for the stage that another one starts from."""

from typing import Literal

StageName = Literal[
    'base',
    'actor',
    'critique',
    'critic',
    'evaluate',
    'self_talk',
    'vanilla',
    'vanilla_2',
    'uniform',
    'critique_in_the_loop',
    'answer_driven',
    'rationale_driven',
    'interactive',
    'state_reset',
    'self_guided',
    'tree_search',
    'reinforce',
    'reinforce_2',
    'reinforce_3',
    'reinforce_critic',
    'reinforce_both',
    'prefer',
    'prefer_critic',
    'average',
]

StartName = Literal[StageName, 'newest', '']
"""Stage whose model another one starts from (config/players.py); 'newest': the last one before it
that made the player; '': the stage that the player is named after."""


def phase(stage: str) -> str:
    """Returns '_2' or '_3' of a stage that is run again, or of its folder's name; else ''."""
    return stage[-2:] if stage.endswith(('_2', '_3')) else ''
