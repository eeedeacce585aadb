"""SCL: what a model's own corrections change, for better or worse, is preferred or disfavoured.

The model answers and then corrects itself without help. Where the two answers differ in being
right, the right one is preferred, whichever came first: the model learns to answer well at once, by
DPO, and not to correct itself again and again.

Formula: DPO on (refined, initial) if refined is right and initial wrong, (initial, refined) if the
other way round, both behind the question.
Source: arXiv 2410.04055.
Differs: text without images; a critique of the critic stands between answer and correction, where
the authors give an instruction; answers are free, not a choice among options.
"""

from elenchus.configs import method


def corrections(groups):
    """The right against the wrong one of an attempt and its refinement, if one of them is each."""
    pairs = []
    for group in groups:
        for episode in group:
            initial, refined = episode.attempt, episode.turns[-1]
            outcomes = (initial.facts.correct, refined.facts.correct)
            if refined.role == 'refinement' and set(outcomes) == {True, False}:
                question = tuple(turn for turn in episode.turns if turn.role == 'question')
                first = type(episode)(episode.problem_id, episode.level, (*question, initial))
                pairs.append((first, episode, 0.0) if outcomes[0] else (episode, first, 0.0))
    return pairs


CHANGES = {
    'prefer.pairs': 'elenchus.configs.methods.scl:corrections',
    'prefer.refine': 'always',
    'prefer.num_refinements': 1,
}
get_config = method.of(CHANGES, stages=method.PREFER)
