"""S3c-Math: a model that notices and corrects its own wrong step in the line after it.

Wrong steps are sampled after right prefixes, a remark that says what is wrong follows, and then the
right step. Wrong steps are read but not trained, so that only noticing and correcting are learnt.

Formula: max sum_t m_t log pi(y_t | x, y_<t), with m_t = 0 on lines that the remark calls wrong.
Source: arXiv 2409.01524.
Differs: every line has a remark, also a right one; the remark is a critique's line on the step.
"""

from elenchus.configs import method

CHANGES = {'self_talk.learn_mistakes': False, 'critique.num_relocated': 2}
get_config = method.of(CHANGES, stages=(*method.EVALUATE, 'self_talk'))
