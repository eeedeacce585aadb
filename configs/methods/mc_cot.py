"""MC-CoT: votes of several rationales, which were a method of decoding, are cast in training.

A small model that writes one rationale learns from its accidents. Here several are sampled for each
question, the answer of most of them is taken, and the model is trained on the rationales behind it,
each question by how united its votes are.

Formula: a* = argmax_a |{i: a_i = a}|; weight of y_i: [a_i = a*] |{j: a_j = a*}| / n.
Source: arXiv 2311.14109; model.py of github.com/chengtan9907/mc-cot, 93db64b.
Differs: the authors vote within one step: logits of n dropout passes, their mean and a mean with
weights 1 / (1 + std), enter the loss on the label. Here whole samples vote, and no label is read.
No images.
"""

import collections

import numpy as np

from elenchus.configs import method


def votes(responses):
    """Accepts the responses whose answer has most votes, the first of equals; from two votes on."""
    answers = [response.turn.facts.answer for response in responses]
    counts = collections.Counter(answer for answer in answers if answer is not None)
    most, count = max(counts.items(), key=lambda item: item[1], default=(None, 0))
    return [count > 1 and answer == most for answer in answers]


def unity(turn, success_rate):
    """The share of votes for the response, at each of its tokens."""
    return np.full(len(turn.tokens), success_rate, np.float32)


CHANGES = {
    'improve.explore.accept': 'elenchus.configs.methods.mc_cot:votes',
    'improve.weighting': 'elenchus.configs.methods.mc_cot:unity',
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'vanilla', 'evaluate'))
