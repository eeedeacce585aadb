"""Reflective Verification: a draft is read again by the model, behind a request to check it.

One pass reads [last token, draft, a request to reflect, draft again]. Tokens are sampled from the
fused logits, so drafts of the same meaning are kept more often than by the model's own.

Formula: z = (1 - a) z_0 + a z_r; z_0 at the first copy, z_r at the second; a 0.3.
Source: arXiv 2505.18629; a and the order of the copies from a third party's code, as is that six
tokens are drafted. No code of the authors was read.
Differs: drafts are looked up in the sequence, where the authors have a draft model; the request is
ours, on the lab one of its few words; the token behind a draft has z_0 alone; critics draft too.
"""

from elenchus.configs import method

DRAFT = 6
TEXT = '\nLet me check the last words again. They should be:'
LAB_TEXT = ' answer : correct ?'


def room(config):
    """Positions behind a sequence for two drafts and the text, of no more tokens than letters."""
    return config.sampling.engine.max_length + 2 * DRAFT + len(TEXT)


get_config = method.of(
    {
        'sampling.engine.draft_tokens': DRAFT,
        'sampling.engine.draft_ngram': 4,
        'sampling.engine.reflection': TEXT,
        'sampling.engine.reflection_weight': 0.3,
        'sampling.engine.max_length': room,
        'model.max_length': lambda c: max(c.model.max_length, room(c)),
    },
    stages=method.EVALUATE,
    lab_changes={'sampling.engine.reflection': LAB_TEXT},
)
