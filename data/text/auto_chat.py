"""Builds the Chat of a tokenizer from the template that its model publishes, and checks it.

Chat encodes a derived template piece by piece, whereas the published template is rendered to a text
that is tokenised as a whole. The tokens of both are compared here before anything is sampled.
"""

import dataclasses
import difflib
import os

from elenchus.data.text import chat_templates, derived_templates
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.chat import Chat
from elenchus.data.text.chat_templates import Frame, Pieces, Template
from elenchus.data.text.derived_templates import Source
from elenchus.data.text.jinja_sandbox import RenderError
from elenchus.data.text.tokenizer_json import JsonTokenizer

_CONVERSATIONS = (
    ('Zoë has 3 pens.\nHow many?', '3 + 0 = 3\n#### 3', 'Step 1 is right.', 'She has 3.'),
    ('1 + 1?', '2', '?', '2'),
    ('(a) What?', '\\boxed{4}', '"Wrong": no', '$5'),
)
_ROLES = ('question', 'attempt', 'critique', 'refinement')
_SIDES = ('user', 'assistant', 'user', 'assistant')


def is_derived(name: str) -> bool:
    """Returns True if a template's name asks for the one that the model publishes."""
    return name in derived_templates.NAMES


def template_names() -> tuple[str, ...]:
    """Returns all names of templates: the frozen ones, then the derived ones."""
    return (*chat_templates.TEMPLATES, *derived_templates.NAMES)


def load_chat(
    tokenizer: tokenizers.Tokenizer,
    folder: str | os.PathLike | None,
    *,
    template: str,
    system: str,
    correction: str = chat_templates.CORRECTION,
    source: Source | None = None,
) -> Chat:
    """Returns the chat of a template's name with one tokenizer.

    Args:
        tokenizer: the tokenizer.
        folder: folder of the tokenizer with its published template; None: there is none.
        template: name of a frozen template, `auto` or `auto:no_thinking`.
        system: system message, as `tokenizer.system` of a run.
        correction: instruction between an attempt and its refinement; see Chat.
        source: the published template; None: it is read from the folder.

    Raises ValueError, in one line, if the name is unknown, the model publishes no template, or it
    cannot be derived or gives other tokens than the published one.
    """
    if not is_derived(template):
        if template not in chat_templates.TEMPLATES:
            near = difflib.get_close_matches(template, template_names(), n=1, cutoff=0.0)[0]
            raise ValueError(f'unknown template {template!r}; nearest: {near!r}')
        layout = chat_templates.with_system(chat_templates.TEMPLATES[template], system)
        return Chat(tokenizer, layout, correction)
    if not isinstance(tokenizer, JsonTokenizer):
        raise ValueError(
            f'template={template!r} needs a tokenizer.json, not {tokenizer.file_name}; nearest: '
            f'one of {", ".join(chat_templates.TEMPLATES)}'
        )
    if source is None:
        if folder is None:
            raise ValueError(f'template={template!r} needs tokenizer.kind=file')
        source = derived_templates.read_source(folder, name=template)
    published = derive_chat(tokenizer, source, name=template)
    layout = chat_templates.with_system(published.template, system)
    chat = dataclasses.replace(published, template=layout, correction=correction)
    if system not in (chat_templates.PUBLISHED, ''):
        check(chat, source)
    return chat


def derive_chat(tokenizer: JsonTokenizer, source: Source, *, name: str) -> Chat:
    """Returns the chat of a published template. Raises ValueError as `load_chat` does."""
    written = {
        token
        for token in tokenizer.added_tokens
        if token in tokenizer.special_names or not derived_templates.THOUGHTS.fullmatch(token)
    }
    adds_space = _adds_space(tokenizer)
    template = derived_templates.derive(source, written, name=name, adds_space=adds_space)
    if adds_space:
        template = _without_spaces(template)
    used = template.specials() | {p.name for p in template.prefix if not isinstance(p, str)}
    if template.system_frame is not None:
        pieces = (*template.system_frame.header, *template.system_frame.footer)
        used |= {piece.name for piece in pieces if not isinstance(piece, str)}
    missing = used - tokenizer.special_names
    if missing:  # otherwise a question with the text of one could end its own turn
        tokenizer = dataclasses.replace(tokenizer, protected=tokenizer.protected | missing)
    chat = Chat(tokenizer, template)
    check(chat, source)
    return chat


def check(chat: Chat, source: Source) -> None:
    """Raises ValueError if the published template, tokenised as a whole, gives other tokens."""
    template = chat.template
    is_default = template.system == template.default_system
    system_messages = [] if is_default else [('system', template.system)]
    for texts in _CONVERSATIONS:
        for count in (1, 3):
            messages = [*system_messages, *zip(_SIDES[:count], texts[:count], strict=True)]
            try:
                text = source.render(messages, prompt=True)
            except RenderError as error:
                raise ValueError(f'the chat template refuses a system message: {error}') from None
            expected = chat.tokenizer.encode_rendered(text)
            turns = list(chat.question_turns(texts[0]))
            turns += [chat.text_turn(_ROLES[i], texts[i]) for i in range(1, count)]
            ours = chat.context(turns, _ROLES[count])
            if ours != expected:
                at = next(
                    (
                        i
                        for i, pair in enumerate(zip(ours, expected, strict=False))
                        if pair[0] != pair[1]
                    ),
                    min(len(ours), len(expected)),
                )
                raise ValueError(
                    'the chat template cannot be used with this tokenizer: in parts it gives other '
                    f'tokens than as a whole, from token {at} on (ours {ours[at : at + 4]}, '
                    f'published {expected[at : at + 4]}); name a frozen template'
                )


def _adds_space(tokenizer: JsonTokenizer) -> bool:
    """Returns True if a tokenizer puts a space before a text."""
    return tokenizer.encode('a') != tokenizers.encode_continuation(tokenizer, 'a', after='\n')


def _without_spaces(template: Template) -> Template:
    """Drops the space at the end of headers that the tokenizer puts before a text itself."""

    def shortened(frame: Frame) -> Frame:
        header = frame.header
        if header and isinstance(header[-1], str) and header[-1].endswith(' '):
            last: Pieces = (header[-1][:-1],) if header[-1] != ' ' else ()
            header = (*header[:-1], *last)
        return Frame(header, frame.footer)

    return dataclasses.replace(
        template,
        user=shortened(template.user),
        assistant=shortened(template.assistant),
        space=' ',
    )
