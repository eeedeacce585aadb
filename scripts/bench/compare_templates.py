r"""Compares derived chat templates with `transformers.apply_chat_template`, token for token.

    python -m scripts.bench.compare_templates package:trl models/smollm2 FOLDER/gemma3.jinja

A source is a model folder with tokenizer and chat template, a file `.jinja`, a folder of them, or
`package:trl`, whose installed files have templates of many families. Files `.jinja` are compared
with the tokenizer of --tokenizer, or with a small one that is trained on the template's own text
and has its special tokens. Every conversation is compared as a prompt (the published template with
`add_generation_prompt`) and as a whole (without it, up to the end token of the last answer). Prints
a table; exits with 1 if a prompt differs. Needs transformers.
"""

import dataclasses
import importlib.util
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import tokenizers
from absl import app, flags

from elenchus.data.text import auto_chat, chat_templates, derived_templates, thoughts
from elenchus.data.text import tokenizer as tokenizers_lib
from elenchus.data.text.chat import Chat
from elenchus.data.text.derived_templates import Source
from elenchus.data.text.gguf_tokenizer import LLAMA3_SPLIT, QWEN2_SPLIT
from elenchus.data.text.prompts import Prompts
from elenchus.data.text.tokenizer_json import JsonTokenizer
from elenchus.train.config import cli

Messages = tuple[tuple[str, str], ...]

_CONTENTS = {
    'plain': ('Zoë has 3 pens.\nHow many?', '3 + 0 = 3\n#### 3', 'Step 1 is right.'),
    'empty question': ('', '2', 'Wrong.'),
    'empty answer': ('1 + 1?', '', 'Empty.'),
    'empty critique': ('1 + 1?', '2', ''),
    'all empty': ('', '', ''),
    'white space alone': (' ', '\n', '\t \n'),
    'spaces at the ends': ('  1 + 1? ', ' 2  ', '  no '),
    'line breaks at the ends': ('\n\n1 + 1?\n', '\n2\n\n', '\n\nno\n\n\n'),
    'other white space': ('\u00a01?\u2003', '\u30002\u2028', '\r\nno\r\n\x0b\x1f'),
    'scripts': ('中文 العربية עברית', 'ไทย 한국어 日本', 'ßſİıǅ ﬁ'),
    'emoji': ('👩\u200d👩\u200d👧 🇩🇪 1️⃣', '😀', '\ufe0f\u200d'),
    'combining': ('e\u0301\u0323 Å\u030a', '\u0300', 'n\u0303\u200b\ufeff'),
    'control': ('a\x00b\x07\x1b[1m', '\x7f\x85', '\u202eabc\u202c'),
    'code': ('{{ 7 * 7 }} {% if x %}', '\\n \\boxed{1}', '`"\'</a>&amp;%s$1'),
    'numbers': ('1234567890 1,234.50', '3.14159e-10', '½ ² Ⅷ ٣'),
    'long': ('word ' * 400, '1\n' * 300, '=' * 700),
}
_SYSTEMS = (None, 'Be brief.', ' Reason\n\nstep by step. \n')
_ROLES = ('question', 'attempt', 'critique', 'refinement', 'critique', 'refinement')

# Matches a quoted string of a template that has the form of a special token.
_TOKEN = re.compile(
    r'<\|[A-Za-z_]+\|?>|<[a-z_]+\|>|<｜[^｜ ]+｜>|</?s>|<(?:start|end)_of_[a-z]+>|\[/?[A-Z]+\]|'
    r'\[gMASK\]|<sop>|</?think>|<image>'
)
# Text in a template -> (bos_token, eos_token), which tokenizer_config.json would name.
_ENDS = {
    '<|start_header_id|>': ('<|begin_of_text|>', '<|eot_id|>'),
    '<start_of_turn>': ('<bos>', '<eos>'),
    '<|turn>': ('<bos>', '<eos>'),
    '｜': ('<｜begin▁of▁sentence｜>', '<｜end▁of▁sentence｜>'),
    '<|im_end|>': ('<|startoftext|>', '<|im_end|>'),
    '<|START_OF_TURN_TOKEN|>': ('<BOS_TOKEN>', '<|END_OF_TURN_TOKEN|>'),
    '<|end|>': ('<s>', '<|end|>'),
    '': ('<s>', '</s>'),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of the comparison for one template."""

    name: str
    refusal: str = ''  # reason why no template was derived; '': one was
    prompts: tuple[int, int] = (0, 0)  # equal, compared
    wholes: tuple[int, int] = (0, 0)
    redivided: int = 0  # prompts with the same text but other token boundaries
    thoughts: str = ''  # treatment of thoughts in earlier answers: 'kept', 'stripped' or 'other'
    published_refuses: int = 0  # conversations that `transformers` itself refuses
    system: str = ''  # reason why a system message is refused
    differences: tuple[str, ...] = ()  # names of prompts that differ
    note: str = ''  # the first whole conversation that differs


def main(argv: list[str]) -> None:
    """Prints the table of the sources named on the command line."""
    if len(argv) < 2:
        raise ValueError('name a source, such as package:trl or a model folder; see --help')
    outcomes = []
    for name, tokenizer, source in read_sources(argv[1:], tokenizer=flags.FLAGS.tokenizer):
        for template in derived_templates.NAMES:
            variables = tuple(derived_templates.VARIABLES[template].items())
            varied = dataclasses.replace(source, variables=variables)
            label = name + template.removeprefix(derived_templates.AUTO)
            outcomes.append(compare(label, tokenizer, varied, template=template))
    print(table(outcomes))
    if any(outcome.differences for outcome in outcomes):
        sys.exit(1)


def read_sources(
    names: Sequence[str], *, tokenizer: str | None = None
) -> Iterator[tuple[str, JsonTokenizer, Source]]:
    """Yields (name, tokenizer, published template) of all sources.

    Raises ValueError if a source has no template.
    """
    for name in names:
        path = pathlib.Path(name)
        if name == 'package:trl':
            spec = importlib.util.find_spec('trl')
            if spec is None:
                raise ValueError("package:trl is not installed: pip install 'elenchus[peers]'")
            path = pathlib.Path(spec.submodule_search_locations[0]) / 'chat_templates'
        files = [path] if path.suffix == '.jinja' else sorted(path.glob('*.jinja'))
        if (path / 'tokenizer.json').is_file():
            folder_tokenizer = JsonTokenizer.from_file(path / 'tokenizer.json')
            yield path.name, folder_tokenizer, derived_templates.read_source(path)
            continue
        if not files or not files[0].is_file():
            raise ValueError(f'{name} has neither a tokenizer.json nor files *.jinja')
        for file in files:
            text = file.read_text(encoding='utf-8')
            ends = first_and_last(text)
            tokens = (('bos_token', ends[0]), ('eos_token', ends[1]))
            if tokenizer is None:
                yield file.stem, small_tokenizer(text), Source(text, tokens)
            else:
                own_file = tokenizers_lib.find_tokenizer_file(tokenizer)
                yield file.stem, JsonTokenizer.from_file(own_file), Source(text, tokens)


def first_and_last(text: str) -> tuple[str, str]:
    """Returns the texts of bos_token and eos_token that go with a template's text."""
    return next(ends for mark, ends in _ENDS.items() if mark in text)


def small_tokenizer(text: str) -> JsonTokenizer:
    """Returns a byte-level BPE tokenizer trained on a template, with its special tokens.

    It merges the words and line breaks of the template, as the tokenizers of models do, so that a
    text encoded in pieces can differ from the text encoded as a whole.
    """
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

    names = sorted({*_TOKEN.findall(text), *first_and_last(text)})
    tokenizer = tokenizers.Tokenizer(models.BPE())
    split = LLAMA3_SPLIT if '<|start_header_id|>' in text else QWEN2_SPLIT
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(split), 'isolated'),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learned = [_TOKEN.sub('\n', text).replace('\\n', '\n')]
    learned += [part for texts in _CONTENTS.values() for part in texts]
    tokenizer.train_from_iterator(learned, trainer)
    tokenizer.add_tokens(
        [
            AddedToken(name, special='think' not in name, normalized=False)  # as of Qwen 3
            for name in names
        ]
    )
    return JsonTokenizer(tokenizer.to_str().encode())


def conversations() -> Iterator[tuple[str, Messages]]:
    """Yields (name, messages) of all conversations, which end with an answer."""
    for system in _SYSTEMS:
        for name, (question, answer, critique) in _CONTENTS.items():
            for count in (2, 4, 6):
                texts = (question, answer, critique, answer, critique, answer)[:count]
                sides = ('user', 'assistant') * 3
                messages = tuple(zip(sides, texts, strict=False))
                if system is not None:
                    messages = (('system', system), *messages)
                yield f'{name}, {count}, system={system!r}', messages


def compare(name: str, tokenizer: JsonTokenizer, source: Source, *, template: str) -> Outcome:
    """Compares the derived template of a source with the published one on all conversations."""
    try:
        chats = {None: _chat(tokenizer, source, template=template, system='published')}
    except ValueError as error:
        return Outcome(name, refusal=str(error))
    theirs = Theirs(tokenizer, source)
    counts = {'prompts': [0, 0], 'wholes': [0, 0]}
    differences, note, refused, system_refusal, redivided = [], '', 0, '', 0
    for label, messages in conversations():
        system = messages[0][1] if messages[0][0] == 'system' else None
        if system not in chats:
            try:
                chats[system] = _chat(tokenizer, source, template=template, system=system)
            except ValueError as error:
                chats[system], system_refusal = None, str(error)
        chat = chats[system]
        if chat is None:
            continue
        for kind, add_prompt in (('prompts', True), ('wholes', False)):
            expected = theirs.ids(messages[:-1] if add_prompt else messages, prompt=add_prompt)
            if expected is None:
                refused += 1
                continue
            ours = ids_of(chat, messages, prompt=add_prompt)
            is_equal = ours == (expected if add_prompt else expected[: len(ours)])
            counts[kind][0] += is_equal
            counts[kind][1] += 1
            if not is_equal and add_prompt:
                if tokenizer.decode_rendered(ours) == tokenizer.decode_rendered(expected):
                    redivided += 1
                else:
                    differences.append(label)
            elif not is_equal and not note:
                note = _difference(tokenizer, ours, expected)
    return Outcome(
        name,
        prompts=tuple(counts['prompts']),
        wholes=tuple(counts['wholes']),
        redivided=redivided,
        thoughts=_thoughts(chats[None], theirs),
        published_refuses=refused,
        system=system_refusal,
        differences=tuple(differences),
        note=note,
    )


def _chat(tokenizer: JsonTokenizer, source: Source, *, template: str, system: str) -> Chat:
    return auto_chat.load_chat(tokenizer, None, template=template, system=system, source=source)


def ids_of(chat: Chat, messages: Messages, *, prompt: bool) -> list[int]:
    """Returns our ids of a conversation: up to its last answer, or with it."""
    texts = [text for side, text in messages if side != 'system']
    turns = [*chat.question_turns(texts[0])]
    turns += [chat.text_turn(_ROLES[i], text) for i, text in enumerate(texts) if i]
    role = _ROLES[len(texts) - 1]
    if prompt:
        return chat.context(turns[:-1], role)
    example = chat.example(turns, trained=(role,), weights=None, last_only=True)
    return example.tokens.tolist()


class Theirs:
    """The published template in `transformers`, with the same tokenizer."""

    def __init__(self, tokenizer: JsonTokenizer, source: Source):
        import transformers

        self._tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer.from_str(tokenizer.model.decode()),
            chat_template=source.text,
            **dict(source.tokens),
        )
        self._variables = dict(source.variables)

    def ids(self, messages: Messages, *, prompt: bool) -> list[int] | None:
        """Returns the ids of messages; None if the template refuses them."""
        return self._apply(messages, prompt, tokenize=True, return_dict=False)

    def text(self, messages: Messages, *, prompt: bool) -> str | None:
        """Returns the text of messages; None if the template refuses them."""
        return self._apply(messages, prompt, tokenize=False)

    def _apply(self, messages: Messages, prompt: bool, **options: Any) -> Any:
        import jinja2

        try:
            return self._tokenizer.apply_chat_template(
                [{'role': role, 'content': content} for role, content in messages],
                add_generation_prompt=prompt,
                **self._variables,
                **options,
            )
        except (jinja2.TemplateError, TypeError):
            return None


def _difference(tokenizer: JsonTokenizer, ours: list[int], expected: list[int]) -> str:
    """Returns the first differing tokens of both sequences, as text."""
    at = next((i for i, (a, b) in enumerate(zip(ours, expected, strict=False)) if a != b), 0)
    texts = [tokenizer.decode_rendered(ids[at : at + 6]) for ids in (ours, expected)]
    return f'{texts[0]!r}, published {texts[1]!r}'


def _thoughts(chat: Chat, theirs: 'Theirs') -> str:
    """Returns the setting of thoughts that gives the published prompt: see Outcome.thoughts."""
    prefix = chat_templates.text_of(chat.template.prefix)
    opening = '' if thoughts.OPEN in prefix and thoughts.CLOSE not in prefix else '<think>\n'
    messages = (
        *(('user', '1 + 1?'), ('assistant', f'{opening}Easy.\n</think>\n\n2')),
        *(('user', 'Sure?'), ('assistant', '2')),
    )
    expected = theirs.ids(messages[:-1], prompt=True)
    for name, thinking in (('kept', 'keep'), ('stripped', 'strip')):
        set_chat = dataclasses.replace(chat, prompts=Prompts(thinking=thinking))
        if ids_of(set_chat, messages, prompt=True) == expected:
            return name
    return 'other'


def table(outcomes: Sequence[Outcome]) -> str:
    """Returns the outcomes as a table in Markdown."""
    lines = [
        '| template | prompts equal | whole conversations equal | earlier thoughts | remark |',
        '|---|---|---|---|---|',
    ]
    for outcome in outcomes:
        if outcome.refusal:
            lines.append(f'| {outcome.name} | refused | | | {_cell(outcome.refusal)} |')
            continue
        remarks = [outcome.note and f'whole: {outcome.note}']
        remarks += [outcome.system and f'system message refused: {outcome.system}']
        if outcome.redivided:
            remarks.append(f'{outcome.redivided} prompts are the same text in other tokens')
        if outcome.published_refuses:
            remarks.append(f'published refuses {outcome.published_refuses}')
        if outcome.differences:
            remarks.append(f'DIFFERS: {"; ".join(outcome.differences[:3])}')
        equal = [f'{a} of {b}' for a, b in (outcome.prompts, outcome.wholes)]
        remark = _cell('; '.join(filter(None, remarks)))
        lines.append(
            f'| {outcome.name} | {equal[0]} | {equal[1]} | {outcome.thoughts} | {remark} |'
        )
    return '\n'.join(lines)


def _cell(text: str) -> str:
    return text.replace('|', '\\|').replace('\n', ' ')


if __name__ == '__main__':
    flags.DEFINE_string('tokenizer', None, 'Folder of the tokenizer for files .jinja.')
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
