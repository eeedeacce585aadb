"""PPO: advantages of tokens from a value model, and several clipped updates on the same samples.

A value model learns what reward is still to come after each token. An advantage is what a token
brought more than that, so a right beginning of a wrong response need not be blamed for its end.

Formula: A_t = sum_k (gamma lambda)^k (r_{t+k} + gamma V_{t+k+1} - V_{t+k}), whitened; R_t = A_t +
V_t; loss - min(rho A, clip(rho, 0.8, 1.2) A), and of the value model max((V - R)^2,
(V_old + clip(V - V_old, -0.2, 0.2) - R)^2) / 2; a token's reward is less 0.05 log(pi / pi_ref).
Source: arXiv 1707.06347, 1506.02438; of language models arXiv 2203.02155; PPOTrainer of
github.com/huggingface/trl, a08e713: gamma 1, lambda 0.95, both clips 0.2, KL 0.05, 4 epochs.
Differs: the value model has an optimizer of its own, so no coefficient joins the two losses; it
begins as the actor, where TRL's begins as a reward model; the reward is a verifier's.
"""

from elenchus.configs import method

CHANGES = {
    'reinforce.advantage.outcome': 'gae',
    'reinforce.advantage.step_coef': 0.0,
    'reinforce.objective.preset': 'grpo',
    'reinforce.objective.average': 'token',
    'reinforce.objective.kl': 'k1',
    'reinforce.objective.kl_coef': 0.05,
    'reinforce.num_epochs': 4,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
