"""Agent-R: a failed path is cut at the first error that the model can notice, and goes on rightly.

Trained on right paths alone a model never learns to turn back; trained on whole wrong ones it turns
back too late. So a wrong path is kept up to its first error, a thought of revision follows, and
then a right path from the same parent.

Formula: text = bad path up to its first error + thought + good path behind the common prefix;
the loss is on the thought and on what is right.
Source: arXiv 2501.11425; path_collection.py of github.com/bytedance/Agent-R, dd8bd1e.
Differs: rollouts of the actor find the error, where the authors ask the actor in words; the good
path is its own continuation, in place of a neighbour in a search tree; the thought is the remark on
the error; the right beginning is trained too; one round, not several.
"""

from elenchus.configs import method


def revised(lines, problem):
    """The lines in the order of the path; only a wrong one has its remark, which is the thought."""
    parts = [part.line if part.right else f'{part.line}\n{part.remark}' for part in lines]
    return '\n'.join(parts)


CHANGES = {
    'critique.annotator': 'monte_carlo',
    'self_talk.splice': 'elenchus.configs.methods.agent_r:revised',
    'self_talk.learn_mistakes': False,
}
get_config = method.of(CHANGES, stages=(*method.EVALUATE, 'self_talk'))
