"""OpenVLThinker: fine-tuning and reinforcement in turns, each on what the other made.

Fine-tuning makes reasoning likely enough for reinforcement to find it; the reinforced model then
writes better solutions to fine-tune on. From the second turn on the base is trained again, on right
responses of the last model.

Formula: for t = 1, 2, 3: SFT of the base on D_t, then GRPO; D_1 demonstrations, D_t right responses
of the model after turn t - 1.
Source: arXiv 2503.17352; README of github.com/yihedeng9/OpenVLThinker.
Differs: text without images; D_1 are the reference solutions, where the authors distil a reasoning
model; all turns have the same problems, where theirs get harder; D_t has demonstrations too.
"""

from elenchus.configs import method

CHANGES = {
    'improve.start': 'newest',
    'improve.restart': 'base',
    'improve.num_rounds': 1,
    'reinforce.start': 'newest',
    'reinforce.advantage.step_coef': 0.0,
}
TURNS = ('reinforce', 'vanilla', 'reinforce_2', 'vanilla_2', 'reinforce_3', 'evaluate')
get_config = method.of(CHANGES, stages=(*method.CRITIC, *TURNS))
