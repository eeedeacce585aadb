"""When Thinking Fails: is the answer better worked out, or given at once?

Reasoning in words helps most questions and spoils some. Every question is attempted in both forms.
A gate that chooses the form for each kind of question keeps what reasoning gains, and loses less.

Formula: accuracy of a gate that knows the outcome, mean of max(a_worked, a_answer); and of one that
chooses by level, as learnt on the other half of the questions.
Source: arXiv 2505.11423; classifier-selective reasoning, its best remedy of four.
Differs: accuracy of the answer, where the paper checks instructions (IFEval, ComplexBench); the
classifier knows the level alone, where theirs is a trained model; constraint attention is not read.
The lab's model was taught no such guide: there it is the mark of an answer.
"""

import numpy as np

from elenchus.configs import method


def answer_only(problem):
    """Asks for the answer without reasoning."""
    return '####' if problem.source == 'lab' else 'Give only the final answer, without reasoning.'


def learnt_choice(levels, gains):
    """Whether the answer alone is better on average, by level."""
    return {level: gains[levels == level].mean() > 0 for level in set(levels.tolist())}


def gates(groups, read, conditions):
    """Accuracy of both forms, how often reasoning loses, and accuracy of two gates."""
    worked, direct = (
        np.array([np.mean([bool(e.attempt.facts.correct) for e in group]) for group in form])
        for form in (groups, conditions['answer_only'])
    )
    levels = np.array([group.problem.level for group in groups])
    chosen = worked.copy()
    for half in (0, 1):
        choice = learnt_choice(levels[1 - half :: 2], (direct - worked)[1 - half :: 2])
        for i in range(half, len(groups), 2):
            chosen[i] = direct[i] if choice.get(levels[i], False) else worked[i]
    plain = {'worked': worked.mean(), 'answer only': direct.mean()}
    return plain | {
        'reasoning loses': np.mean(direct > worked),
        'gate that knows the outcome': np.maximum(worked, direct).mean(),
        'gate by level': chosen.mean(),
    }


gates.reads_conditions = True
CHANGES = {
    'evaluate.conditions': ('elenchus.configs.evaluations.when_thinking_fails:answer_only',),
    'evaluate.measures': ('elenchus.configs.evaluations.when_thinking_fails:gates',),
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
