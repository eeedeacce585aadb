"""Self-Specialization: a general model makes its own training data for a field from a few seeds.

The model is shown a seed of the field, writes another instruction like it, and answers it. It is
then tuned, with small adapters, on what it wrote: the knowledge was there, and is carved out.

Formula: x' ~ pi(. | seed), y' ~ pi(. | x'); adapters trained on max log pi(y' | x').
Source: arXiv 2310.00160; no code was found. The words of the prompt are ours.
Differs: one seed a prompt, in place of several; no retrieval; an answer is kept where most of the
model's answers to the question are the same, where the authors keep all. On the lab the next
instruction is the seed with other digits, by rule.
"""

import collections
import re

from elenchus.configs import method

ASK = (
    'Write another task of the same field as this one, but about something else, then solve it. '
    'Write the solution behind a line `Solution:` and end it with `#### answer`.\n{}'
)


def similar(problem, notes):
    """Another instruction like a seed, and a solution of it."""
    if problem.source == 'lab':
        shift = 1 + (len(problem.id) + notes.number) % 9
        other = re.sub(r'\d', lambda d: str((int(d[0]) + shift) % 10), problem.question)
        return [(other, '')]
    if not notes.written:
        return [ASK.format(problem.question)]
    question, _, solution = notes.written[0].partition('Solution:')
    return [(question, solution)]


def majority(responses):
    """Accepts the answer that most responses to a question have, from two on."""
    answers = [response.turn.facts.answer for response in responses]
    counts = collections.Counter(answer for answer in answers if answer is not None)
    most, count = max(counts.items(), key=lambda item: item[1], default=(None, 0))
    return [count > 1 and answer == most for answer in answers]


CHANGES = {
    'improve.num_problems': lambda c: min(c.improve.num_problems, 200),
    'improve.make': 'elenchus.configs.methods.self_specialization:similar',
    'improve.explore.accept': 'elenchus.configs.methods.self_specialization:majority',
    'improve.lora.rank': 8,
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'vanilla', 'evaluate'))
