"""Turns that call tools: an engine that writes a script and pauses where the rule says."""

import dataclasses

from elenchus.data.text import auto_chat, chat, tokenizer_json
from elenchus.data.text.tool_turns import continuation_ids
from elenchus.sampling import episodes, tools
from elenchus.sampling.engine import sampling_methods
from elenchus.sampling.engine.requests import Completion
from elenchus.sampling.engine.sampling_methods import Greedy, RuledMethod
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.tools import ToolSettings
from tests.support import hf_tokenizers
from tests.support.fake_engine import CHAT as LAB

FILES = hf_tokenizers.files(hf_tokenizers.golden()['merges'])
PLAIN = ToolSettings(
    *((), 'fenced', ('attempt', 'refinement'), 4, 0.3, 128, 200, (), 'namespaces', 1)
)


def chat_of(template):
    """The chat of a template, with a tokenizer that can write every text."""
    if template == 'elenchus':
        return LAB
    name = template if template in FILES else 'chatml'
    tokenizer = tokenizer_json.JsonTokenizer(FILES[name].encode())
    return auto_chat.load_chat(tokenizer, None, template=template, system='published', source=None)


@dataclasses.dataclass
class ScriptEngine:
    """Writes the parts of a script; a part ends where the model would read a tool's turn.

    Where the rule pauses it ends a completion, and goes on with the next call.
    """

    chat: chat.Chat
    parts: list  # of texts; one that ends with '</s>' ends a message
    calls: int = 0
    requests: list = dataclasses.field(default_factory=list)
    _at: tuple[int, int] = (0, 0)

    def generate(self, model, requests, *, method, seed):
        self.calls += 1
        (request,) = requests
        self.requests.append(request)
        part, token = self._at
        text = self.parts[part]
        ids = list(continuation_ids(self.chat.tokenizer, text.removesuffix('</s>')))
        ids += [self.chat.end_id] if text.endswith('</s>') else []
        rule = method.pause.function.ids if isinstance(method, RuledMethod) else ()
        rest = ids[token : token + request.max_tokens]
        size = next((i for i, id_ in enumerate(rest, 1) if id_ in rule), len(rest))
        token += size
        self._at = (part, token) if token < len(ids) else (part + 1, 0)
        ended = rest[size - 1] == self.chat.end_id
        return [Completion(request.id, tuple(rest[:size]), (-1.0,) * size, ended, size)]

    def with_prefix_cache(self):
        return self


def sample(conversation_chat, parts, *, settings, limit=400, role='attempt', answer=None):
    """(turn, engine, question) of a turn that is written by a script and calls tools."""
    engine = ScriptEngine(conversation_chat, list(parts))
    box, use, rule = tools.Toolbox(settings), None, None
    if settings.use:
        calls = tools.calls_of(settings, conversation_chat)
        use = tools.ToolUse(calls, answer or box.answer, settings.max_calls)
        rule = tools.pause_rule(calls, conversation_chat)
    method = sampling_methods.with_rules(Greedy(()), None, rule)
    sampler = episodes.Sampler(engine, conversation_chat, {role: limit}, None, use)
    question = conversation_chat.question_turns('What is it?')
    spec = SampleSpec(1, method, 0, 0)
    ((turn,),) = sampler.sample_turns(None, [question], role, spec=spec)
    box.close()
    return turn, engine, question
