"""TAR-TVG: reinforcement to collect good traces, fine-tuning of a fresh base on them, and again.

What reinforcement is to reward must first occur. So a first phase of it only finds right traces;
the base is fine-tuned on these, and the second phase starts from a model that writes them often.

Formula: GRPO -> D = right responses of that model -> SFT of the base on D -> GRPO.
Source: arXiv 2508.07683 (abstract), and its review at openreview.net/forum?id=XOuHTBLrPP.
Differs: text without videos; answers are right or wrong, where the authors compare time spans, and
no anchors in the thought are rewarded; the first phase starts from the fine-tuned actor, and D has
the actor's demonstrations too.
"""

from elenchus.configs import method

CHANGES = {
    'reinforce.start': 'newest',
    'reinforce.advantage.step_coef': 0.0,
    'improve.start': 'reinforce',
    'improve.restart': 'base',
    'improve.num_rounds': 1,
}
get_config = method.of(
    CHANGES, stages=(*method.CRITIC, 'reinforce', 'vanilla', 'reinforce_2', 'evaluate')
)
