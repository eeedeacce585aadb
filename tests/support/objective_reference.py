"""Float64 references of the objectives, written from the table in docs/methods.md."""

import dataclasses
import functools

import numpy as np

from elenchus.train import objective as objective_lib


@dataclasses.dataclass
class Sequence:
    """Values of the trained tokens of one sequence, float64."""

    logp: np.ndarray
    old: np.ndarray
    ref: np.ndarray
    weight: np.ndarray
    entropy: np.ndarray
    roles: np.ndarray


def weighted_nll(s, _):
    return [-w * lp for w, lp in zip(s.weight, s.logp, strict=True)]


def ppo(s, _, *, low, high):
    losses = []
    for lp, old, advantage in zip(s.logp, s.old, s.weight, strict=True):
        rho = np.exp(lp - old)
        losses.append(-min(rho * advantage, min(max(rho, 1 - low), 1 + high) * advantage))
    return losses


def gspo(s, _, *, low, high):
    rho = np.exp(sum(s.logp - s.old) / len(s.logp))
    kept = min(max(rho, 1 - low), 1 + high)
    return [-min(rho * advantage, kept * advantage) for advantage in s.weight]


def product(s, _, *, low, high):
    rho = np.exp(sum(s.logp - s.old))
    kept = min(max(rho, 1 - low), 1 + high)
    return [-min(rho * advantage, kept * advantage) for advantage in s.weight]


def score(s, frozen):
    surrogate, d = ppo(s, frozen, low=0.2, high=0.2), s.ref - s.logp
    coefficients = 0.3 * (s.roles == objective_lib.ATTEMPT)
    return [x + c * (np.exp(y) - y - 1) for x, c, y in zip(surrogate, coefficients, d, strict=True)]


def cispo(s, frozen, *, low, high):
    rho = np.exp(frozen.logp - frozen.old)
    return [-min(max(r, 1 - low), 1 + high) * w * lp
            for r, w, lp in zip(rho, s.weight, s.logp, strict=True)]  # fmt: skip


def with_kl(estimate, coefficient):
    def losses(s, frozen):
        surrogate = ppo(s, frozen, low=0.2, high=0.2)
        d = s.ref - s.logp
        return [x + coefficient * estimate(y) for x, y in zip(surrogate, d, strict=True)]

    return losses


def with_entropy(s, frozen):
    return [x - 0.2 * h for x, h in zip(weighted_nll(s, frozen), s.entropy, strict=True)]


def token_mean(per_sequence):
    return sum(map(sum, per_sequence)) / sum(map(len, per_sequence))


def sequence_mean(per_sequence):
    return sum(sum(x) / len(x) for x in per_sequence) / len(per_sequence)


def constant_mean(per_sequence, *, length):
    return sum(sum(x) / length for x in per_sequence) / len(per_sequence)


part = functools.partial
REFERENCES = {
    'sft': (weighted_nll, token_mean),
    'rloo': (weighted_nll, part(constant_mean, length=1)),
    'grpo': (part(ppo, low=0.2, high=0.2), sequence_mean),
    'grpo-k2': (with_kl(lambda d: d * d / 2, 0.3), sequence_mean),
    'grpo-k3': (with_kl(lambda d: np.exp(d) - d - 1, 0.3), sequence_mean),
    'dr-grpo': (part(ppo, low=0.2, high=0.2), part(constant_mean, length=20)),
    'dapo': (part(ppo, low=0.2, high=0.28), token_mean),
    'gspo': (part(gspo, low=0.05, high=0.08), sequence_mean),
    'cispo': (part(cispo, low=0.2, high=0.28), token_mean),
    'rloo-product': (part(product, low=0.2, high=0.2), sequence_mean),
    'score': (score, sequence_mean),
    'entropy': (with_entropy, token_mean),
}


def sequences_of(batch, logprobs, entropy):
    """[(Sequence, its row and columns)] of the sequences with a trained token."""
    sequences = []
    for row in range(len(batch.tokens)):
        for segment in range(1, batch.segments[row].max() + 1):
            is_trained = (batch.segments[row] == segment) & (batch.loss_mask[row] > 0)
            values = (
                logprobs, batch.old_logprobs, batch.ref_logprobs, batch.weights, entropy,
                batch.roles,
            )  # fmt: skip
            if is_trained.any():
                sequence = Sequence(*(x[row, is_trained].astype(np.float64) for x in values))
                sequences.append((sequence, (row, np.flatnonzero(is_trained))))
    return sequences


def reference(method, sequences, frozen):
    losses, mean = REFERENCES[method]
    return mean([losses(s, f) for s, f in zip(sequences, frozen, strict=True)])


def reference_grads(method, batch, logprobs, entropy):
    """Central differences of the reference with respect to every log-probability."""
    sequences = sequences_of(batch, logprobs, entropy)
    frozen = [s for s, _ in sequences]
    grads = np.zeros(logprobs.shape)
    for i, (sequence, (row, places)) in enumerate(sequences):
        for j, place in enumerate(places):
            values = []
            for step in (1e-6, -1e-6):
                moved = sequence.logp.copy()
                moved[j] += step
                others = frozen[:i] + [dataclasses.replace(sequence, logp=moved)] + frozen[i + 1 :]
                values.append(reference(method, others, frozen))
            grads[row, place] = (values[0] - values[1]) / 2e-6
    return grads
