"""ASTRO: a search, written down as one thought with its failures and ways back, then reinforced.

Searches over lines of a solution have branches that fail. Written in the order of the search they
become texts that go wrong, notice it, return to an earlier line and end right. A model learns to
write such texts and is reinforced on its own.

Formula: text = edges of the tree, in order; behind a failed node the way back to its parent. A node
fails if too few continuations from it are right (the value of a search).
Source: arXiv 2507.00417 (abstract and a review); the authors' phrases were not found.
Differs: a node is a line that rollouts call wrong, and its sibling the actor's continuation from
the line before, in place of Monte Carlo tree search; no model rewrites the text.
"""

from elenchus.configs import method


def backtracked(lines, problem):
    """The lines as they were tried; behind a wrong one the remark, and the line to return to."""
    parts, last_right = [], ''
    for part in lines:
        parts.append(part.line)
        if part.right:
            last_right = part.line
        else:
            parts += [part.remark, last_right]
    return '\n'.join(filter(None, parts))


CHANGES = method.TALKS | {
    'critique.annotator': 'monte_carlo',
    'self_talk.splice': 'elenchus.configs.methods.astro:backtracked',
    'reinforce.start': 'self_talk',
    'reinforce.advantage.step_coef': 0.0,
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'self_talk', 'reinforce', 'evaluate'))
