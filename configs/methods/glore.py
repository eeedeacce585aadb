"""GLoRe with SORM: where to refine is learnt from samples, which answer to keep from scores.

A stepwise reward model says of each step whether the right answer can be reached from it when the
policy is sampled many times. It locates the first error for a local refiner, and ranks the draft
against its refinement.

Formula: a line is right iff any of K continuations from it, or from a later line, is right;
answer = argmax of the score over draft and refinements.
Source: arXiv 2402.10963 (abstract); no code was found, and the labels' clean-up is from memory.
Differs: the critic is SORM and ORM; the local refiner alone, which reads the critique, is trained
and ranked: a global one would see the draft alone; K is 8; positives and negatives are not
balanced by prefix length.
"""

from elenchus.configs import method


def reachable(outcomes):
    """Labels of lines: right up to the last from which a continuation reached the answer."""
    counts = outcomes.successes
    return [outcomes.correct or any(counts[i:]) for i in range(len(counts))]


def reranked(groups, read, rounds):
    """Accuracy of drafts, of refinements, and of the better scored of both, over all drafts."""
    right = {'draft': [], 'refined': [], 'reranked': []}
    for group, later in zip(groups, rounds, strict=True):
        for episode, chain in zip(group, later, strict=True):
            drafts = [episode.attempt, *(e.attempt for e in chain)]
            scored = [turn for turn in drafts if turn.facts.score is not None]
            best = max(scored, key=lambda turn: turn.facts.score, default=drafts[0])
            for name, turn in (('draft', drafts[0]), ('refined', drafts[-1]), ('reranked', best)):
                right[name].append(bool(turn.facts.correct))
    return {name: sum(values) / len(values) for name, values in right.items() if values}


reranked.reads_rounds = True
HERE = 'elenchus.configs.methods.glore'
CHANGES = {
    'critique.annotator': 'monte_carlo',
    'critique.labels': f'{HERE}:reachable',
    'evaluate.num_rounds': 2,
    'evaluate.measures': (f'{HERE}:reranked',),
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
