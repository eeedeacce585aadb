"""ReGenesis: solutions from general guidelines, made concrete in three steps, are trained alone.

A model takes a general way to think, adapts it to the problem, makes an outline of it, and solves
the problem by the outline. What is right is trained behind the bare question, so that the model
learns to think so by itself; the guidance is general, so that other tasks gain too.

Formula: m' = adapt(m_r, x), s = outline(m', x), y ~ pi(x, s); max log pi(y | x) for right y.
Source: arXiv 2410.02108; src/reasoning/reasoning_paths_gen.py of
github.com/SalesforceAIResearch/ReGenesis, e07585e.
Differs: the guidelines are five of ours, one a round, where the authors have 25, and 20 times a
choice of them by the model; problems that stay unsolved get no hint with the answer. On the lab,
which has no words for guidelines, the outline is what the model writes at once.
"""

from elenchus.configs import method

GUIDELINES = (
    'Break the problem into smaller parts and solve them one by one.',
    'Write down what is given and what is asked, then connect them.',
    'Work backwards from what is asked.',
    'Solve a simpler problem of the same kind first.',
    'Check each step against the problem before the next one.',
)
ADAPT = 'Adapt this advice to the problem in a sentence or two, without solving it.\n{}\n{}'
OUTLINE = 'Make a short outline by this advice, step by step, without solving it.\n{}\n{}'


def outline(problem, notes):
    """Asks for adapted advice, then for an outline by it."""
    if problem.source == 'lab':
        return notes.written[0] if notes.written else [problem.question]
    texts = (GUIDELINES[notes.number % len(GUIDELINES)], *notes.written)
    forms = (ADAPT, OUTLINE)
    step = len(notes.written)
    return [forms[step].format(texts[-1], problem.question)] if step < 2 else texts[-1]


CHANGES = {
    'actor.guided_per_problem': 1,
    'improve.explore.player_guide': 'elenchus.configs.methods.regenesis:outline',
    'improve.explore.num_guided_rounds': len(GUIDELINES),
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'self_guided', 'evaluate'))
