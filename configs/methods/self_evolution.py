"""SELF: a model that has learnt to give feedback and to refine improves itself without labels.

First it learns two skills: feedback on a response, and a refinement after it. Then it answers
questions without labels, refines what its feedback calls wrong, and is trained on what the feedback
then calls correct, together with the data of the two skills. This is repeated.

Formula: D_t = {(x, y): feedback(x, y) = correct}, y a response or a refinement; max log pi(y | x)
on D_t and on the data of the skills.
Source: arXiv 2310.00533, sections 3.1 and 3.2; no code was found.
Differs: feedback is given by the critic, which is trained from the actor, and not by the same
weights as the responses; the data of the skills are the annotator's, where the authors ask GPT-4.
"""

from elenchus.configs import method

CHANGES = {
    'critic.start': 'actor',
    'improve.num_rounds': 3,
    'improve.restart': 'last',
    'improve.explore.accept': 'critic',
    'improve.explore.num_refinements': 1,
}
LAB = {'improve.num_rounds': 2}
STAGES = (*method.CRITIC, 'critique_in_the_loop', 'evaluate')
get_config = method.of(CHANGES, stages=STAGES, lab_changes=LAB)
