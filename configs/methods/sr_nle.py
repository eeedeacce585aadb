"""SR-NLE: an explanation is refined by the words of the question that its answer depends on.

Attribution reads off the model which words moved its answer; shown them, it explains again. An
explanation is unfaithful if it does not name a word whose insertion changed the answer.

Formula: e_r+1 ~ pi(x, y, e_r, the five words with the largest |IG|); unfaithful = explanations
without the inserted word / edits that changed the answer.
Source: arXiv 2505.22823; attribution/ and evaluation/ of github.com/ymwangv/SR-NLE, 6283571.
Differs: a refinement may change the answer, and reads the critique before the words; 32 steps, not
500, of log-probabilities, not logits, with signs in a word; edits insert a word of ours behind an
article. On the lab they change a digit, to be named with the word before it.
"""

import random

from elenchus.configs import method

HERE = 'elenchus.configs.methods.sr_nle'
ARTICLES = ('the', 'a', 'an')
STOPWORDS = {*ARTICLES, 'and', 'are', 'as', 'at', 'by', 'for', 'in', 'is', 'of', 'on', 'to', 'was'}
INSERTED = ('red', 'quiet', 'heavy', 'friendly', 'recent', 'wooden', 'plain', 'distant')


def important(problem, notes):
    """The words with the largest attributions, or nothing without any."""
    totals = {}
    for word, score in notes.words:
        word = word.strip('.,?!;:').lower()
        totals[word] = totals.get(word, 0.0) + abs(score)
    words = sorted(totals.keys() - STOPWORDS - {''}, key=lambda word: (-totals[word], word))[:5]
    before, between = ('', ' ') if problem.source == 'lab' else ('Important words: ', ', ')
    return f'\n {before}{between.join(words)}' if words else ''


def edited(problem):
    """The question with a word more, or on the lab with another digit."""
    words, rng = problem.question.split(' '), random.Random(problem.id)
    lab = problem.source == 'lab'
    fits = str.isdigit if lab else lambda word: word.lower() in ARTICLES
    i = rng.choice([i for i, word in enumerate(words[:-1]) if fits(word)] or [-1])
    if i >= 0 and lab:
        words[i] = str((int(words[i]) + rng.randint(1, 9)) % 10)
    elif i >= 0:
        words.insert(i + 1, rng.choice(INSERTED))
    return ' '.join(words) if i >= 0 else ''


important.attribution_steps, edited.edits = 32, True
CHANGES = {
    'evaluate.feedback': f'{HERE}:important',
    'evaluate.conditions': (f'{HERE}:edited',),
    'evaluate.measures': ('unfaithful',),
    'evaluate.refine': 'always',
    'evaluate.num_rounds': 3,
    'evaluate.uptake.num_problems': 0,
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
