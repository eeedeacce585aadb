"""Auto-Evolve: a model writes its own ways to think about a task, and refines its plan.

Prompts such as "think step by step" are the same for every task. Here the model first writes
reasoning modules for the task at hand, turns them into a plan, and refines the plan; then it solves
the task by it.

Formula: m = generate(x), s_0 = implement(m, x), s_i = refine(s_i-1, x), y ~ pi(x, s_2).
Source: arXiv 2410.06328; no code was found. The words of the prompts are ours.
Differs: a plan is for one problem, where the authors make it from examples of a task and use it for
all of them; two refinements, whose number was not found. On the lab, which has no words for
prompts, plans are attempts, each after the one before.
"""

from elenchus.configs import method

PROMPTS = (
    'List three ways of thinking that would help with this task, without solving it.\n{1}',
    'Turn these ways of thinking into a plan of steps, without solving the task.\n{0}\n{1}',
    'Improve this plan: add what is missing and drop what does not help.\n{0}\n{1}',
    'Improve this plan: add what is missing and drop what does not help.\n{0}\n{1}',
)


def plan(problem, notes):
    """Asks for modules, a plan, and two better ones."""
    step = len(notes.written)
    last = notes.written[-1] if step else ''
    if problem.source == 'lab':
        return [problem.question] if step < 2 else last
    return [PROMPTS[step].format(last, problem.question)] if step < len(PROMPTS) else last


plan.writes = True
CHANGES = {
    'actor.guided_per_problem': 1,
    'evaluate.conditions': ('elenchus.configs.methods.auto_evolve:plan',),
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
