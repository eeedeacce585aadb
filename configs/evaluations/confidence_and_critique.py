"""Confidence and critique: self-correction split into keeping right and mending wrong answers.

Accuracy after correction says little: it mixes how often right answers stay right (confidence) with
how often wrong ones become right (critique). The score relates the gain to what was possible.

Formula: CL = P(right after | right), CS = P(right after | wrong),
RSS = (acc2 - acc1^2) / (2 acc1 (1 - acc1)).
Source: arXiv 2412.19513; github.com/Zhe-Young/SelfCorrectDecompose, 44e8634.
Differs: probabilities are shares of sampled answers; answers of multiple choice are not separated.
"""

from elenchus.configs import method


def decomposed(groups, read):
    """CL, CS and RSS of refinement."""
    pairs = [
        (bool(episode.attempt.facts.correct), bool(episode.response.facts.correct))
        for group in groups
        for episode in group
    ]
    before = sum(first for first, _ in pairs) / len(pairs)
    after = sum(second for _, second in pairs) / len(pairs)
    kept = [second for first, second in pairs if first]
    mended = [second for first, second in pairs if not first]
    varied = 0 < before < 1
    return {
        'CL': sum(kept) / len(kept) if kept else float('nan'),
        'CS': sum(mended) / len(mended) if mended else float('nan'),
        'RSS': (after - before**2) / (2 * before * (1 - before)) if varied else float('nan'),
    }


CHANGES = {
    'evaluate.measures': ('elenchus.configs.evaluations.confidence_and_critique:decomposed',)
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
