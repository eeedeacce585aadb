r"""The two answers that lm-evaluation-harness reads from a response to GSM8K.

`strict-match` is the first `#### 42`, `flexible-extract` the last number in the text. So that our
figures stand beside published ones, the regular expressions, and what is ignored in a comparison,
are those of its lm_eval/tasks/gsm8k/gsm8k.yaml, version 3 (github.com/EleutherAI/
lm-evaluation-harness). Its prompt has five examples; other prompts give other figures.
"""

import re

from elenchus.data.text import thoughts

STRICT = re.compile(r'#### (\-?[0-9\.\,]+)')
FLEXIBLE = re.compile(r'(-?[$0-9.,]{2,})|(-?[0-9]+)')
INVALID = '[invalid]'
"""What stands for a response without an answer."""

_UNTIL = ('Question:', '</s>', '<|im_end|>')
_IGNORED = [re.compile(pattern) for pattern in (',', r'\$', r'(?s).*#### ', r'\.$')]


def strict_match(text: str) -> str:
    """Returns the first marked number of a response, as it stands there."""
    match = STRICT.search(_response(text))
    return match[1].strip() if match else INVALID


def flexible_extract(text: str) -> str:
    """Returns the last number of a response, as it stands there."""
    matches = FLEXIBLE.findall(_response(text))
    groups = [group for group in matches[-1] if group] if matches else []
    return groups[0].strip() if groups else INVALID


def is_exact_match(answer: str, reference: str) -> bool:
    """Compares texts without commas, dollar signs and a full stop at the end, in lower case."""
    return _normal(answer) == _normal(reference)


def figures(text: str, reference: str) -> dict[str, bool]:
    """Returns whether a response is right by each of the two answers."""
    answers = {'strict-match': strict_match(text), 'flexible-extract': flexible_extract(text)}
    return {name: is_exact_match(answer, reference) for name, answer in answers.items()}


def _response(text: str) -> str:
    """Returns what the harness would have sampled: up to a stop text, without thoughts."""
    text = text.rpartition(thoughts.CLOSE)[2]
    return text[: min((at for stop in _UNTIL if (at := text.find(stop)) >= 0), default=None)]


def _normal(text: str) -> str:
    for pattern in _IGNORED:
        text = pattern.sub('', text)
    return text.lower()
