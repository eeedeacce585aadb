"""An engine whose completions follow a script, shared by the tests of what models are asked for."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from elenchus.data.text import chat
from elenchus.data.text import tokenizer as tokenizers
from elenchus.sampling import episodes
from elenchus.sampling.engine import engine

TOKENIZER = tokenizers.lab_tokenizer()
CHAT = chat.Chat(TOKENIZER)
EOS = TOKENIZER.eos_id
LIMITS = {'attempt': 90, 'critique': 170, 'refinement': 90}
HEADERS = {TOKENIZER.special(name): name.strip('<>') for name in tokenizers.HEADERS}


class Asked(NamedTuple):
    """What a request shows: texts by role, the role to write and what of it is begun."""

    shown: dict[str, str]
    role: str
    begun: str
    model: object
    id: int


@dataclasses.dataclass
class Scripted:
    """Completes with `answer(asked)`; an answer that ends with '...' is cut off there."""

    answer: Callable[[Asked], str]
    asked: list[Asked] = dataclasses.field(default_factory=list)
    calls: int = 0

    def generate(self, model, requests, *, method, seed):
        self.calls += 1
        return [self._complete(read(model, request), request) for request in requests]

    def _complete(self, asked, request):
        self.asked.append(asked)
        text = self.answer(asked)
        ids = tuple(TOKENIZER.encode(text.removesuffix('...').lstrip(' ')))
        ids = ids if text.endswith('...') else (*ids, EOS)
        assert len(ids) <= request.max_tokens, text
        return engine.Completion(request.id, ids, (-1.0,) * len(ids), ids[-1] == EOS, len(ids))


def read(model, request):
    """The request as text, cut at its headers."""
    starts = [i for i, token in enumerate(request.prompt) if token in HEADERS]
    ends = [*starts[1:], len(request.prompt)]
    parts = [
        (HEADERS[request.prompt[start]], TOKENIZER.decode(request.prompt[start + 1 : end]))
        for start, end in zip(starts, ends, strict=True)
    ]
    role, begun = parts.pop()
    return Asked(dict(parts), role, begun, model, request.id)


def make_sampler(answer, limits=LIMITS):
    return episodes.Sampler(Scripted(answer), CHAT, limits)
