"""Merge proxy: the mean of models of parts of the data stands for a model of all of it.

To try every mixture of data one would train a model on each. Instead one model is trained on each
part, and the mean of their weights is evaluated in place of the model of the union.

Formula: theta = sum_i a_i theta_i, a_i the part's share; figures of theta rank the mixtures.
Source: arXiv 2410.15661; in general, model soups (2203.05482).
Differs: the parts are the demonstrations (stage actor) and the model's own right responses (stage
vanilla), both from one base and with the same share (average.weights); accuracy in place of
perplexity. More parts: more stages.
"""

from elenchus.configs import method

CHANGES = {
    'improve.demonstrations': False,
    'improve.restart': 'base',
    'improve.num_rounds': 1,
    'average.stages': ('actor', 'vanilla'),
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'vanilla', 'average', 'evaluate'))
