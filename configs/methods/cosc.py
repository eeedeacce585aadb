"""CoSC: write a program, read what it prints, verify it, and correct it or conclude.

The stages are of one turn and learnt: the model begins another round by itself if its verification
says that the output does not answer the question. What programs print is read and never trained.

Formula: y = (program, output, verification, conclusion)_1..n, until a conclusion is the answer;
max log pi(y without outputs) over demonstrations, then over the model's own right samples.
Source: arXiv 2410.10735.
Differs: the seeds of phase 1 are the user's solutions (JSONL, with ```python and ```output blocks),
where the authors had GPT-4 write them; 3 rounds at most is ours. The lab has no words for programs:
there its calculator, modulo 10, answers each `7 - 4 =`, and there is no verification.
"""

import re

from elenchus.configs import method


def last_digit(text):
    """The lab's calculator: a sum modulo 10."""
    return str(sum(map(int, re.findall(r'[+-]?\d+', text))) % 10)


CHANGES = {
    'sampling.tools.use': ('python',),
    'sampling.tools.form': 'fenced',
    'sampling.tools.max_calls': 3,
    'improve.num_rounds': 1,
    'improve.weighting': 'keep',
    'improve.restart': 'base',
    'improve.demonstrations': True,
}
LAB = {
    'sampling.tools.use': ('elenchus.configs.methods.cosc:last_digit',),
    'sampling.tools.form': 'equation',
    'sampling.tools.max_calls': 20,  # a line has one
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'vanilla', 'evaluate'), lab_changes=LAB)
