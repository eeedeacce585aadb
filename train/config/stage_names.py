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
    'uniform',
    'critique_in_the_loop',
    'answer_driven',
    'rationale_driven',
    'interactive',
    'state_reset',
    'self_guided',
    'reinforce',
    'reinforce_critic',
    'reinforce_both',
    'prefer',
    'prefer_critic',
    'average',
]

StartName = Literal[StageName, 'newest', '']
"""Stage whose model another one starts from (config/players.py); 'newest': the last one before it
that made the player; '': the stage that the player is named after."""
