"""Metacognitive Reuse: recurring steps of solutions become named behaviours in a handbook.

After a round a model looks at what it has written, names steps that would help elsewhere, and
stores them. Later it reads those that fit the problem, and need not derive them again. Solutions
that were written with behaviours are trained without them.

Formula: handbook += reflect(x, y); y ~ pi(x, handbook entries whose names stand in x);
max log pi(y | x) for right y.
Source: arXiv 2509.13237; no code of the authors was found. The words of the prompt are ours.
Differs: entries are found by words that their names share with the question, where the authors
label problems by topic or compare embeddings; a name keeps its first instruction. On the lab a
behaviour is a right line on a thing, under the thing's name.
"""

import re

from elenchus.configs import method

MOST = 5
REFLECT = (
    'Name steps of this solution that would help with other problems. '
    'Write each as a line `name: instruction`.\n{}\n{}'
)
ENTRY = re.compile(r'^[\W\d]*([A-Za-z][\w ]{2,59}):\s*(\S.*)$', re.MULTILINE)
THING = re.compile(r'[+-] ([a-z]+) \d')


def words(text):
    """Words of three letters or more."""
    return set(re.findall(r'[a-z]{3,}', text.lower()))


def handbook(problem, notes):
    """The entries that share most words with the question, each as a line; None without any."""
    question = words(problem.question)
    shared = {name: len(words(name) & question) for name in notes.memory}
    chosen = sorted((n for n in shared if shared[n]), key=lambda n: (-shared[n], n))[:MOST]
    form = '{1}' if problem.source == 'lab' else '{0}: {1}'
    return '\n '.join(form.format(name, notes.memory[name]) for name in chosen) or None


def learn(problem, notes):
    """Named steps of the first response that counts as right."""
    right = [text for text, ok in zip(notes.responses, notes.accepted, strict=True) if ok][:1]
    if problem.source == 'lab':
        lines = [line.strip() for text in right for line in text.split('\n')]
        return {thing: line for line in lines for thing in THING.findall(line)}
    if right and not notes.written:
        return [REFLECT.format(problem.question, right[0])]
    return dict(ENTRY.findall(notes.written[0])) if right else {}


handbook.learn = learn
CHANGES = {
    'improve.num_rounds': 2,
    'improve.restart': 'last',
    'improve.explore.player_guide': 'elenchus.configs.methods.behaviours:handbook',
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'self_guided', 'evaluate'))
