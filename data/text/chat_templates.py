"""Chat templates of model families: the special tokens and text around each turn.

The templates of published models have two sides, user and assistant. For the actor, attempts and
refinements are the assistant's turns and all others the user's; for the critic, only critiques are
the assistant's. Consecutive turns of one side form one message. The formats are those that the
families publish with their models (`chat_template` of tokenizer_config.json); tests/golden compares
them.
"""

import dataclasses
import functools
import itertools
import types
from typing import Any

from elenchus.data.records import PLAYER_OF_ROLE


@dataclasses.dataclass(frozen=True)
class Special:
    """A special token, by its name such as '<|im_end|>'."""

    name: str


END = ':end'
"""Suffix of a side in Template.trims: its messages are trimmed at the end only."""

Pieces = tuple[str | Special, ...]
"""A sequence of special tokens and text."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """The pieces before and after each message of a side."""

    header: Pieces
    footer: Pieces


@dataclasses.dataclass(frozen=True)
class ToolForm:
    """How a template writes a tool call, which ends a message, and the message with the answer."""

    opening: str  # before the JSON object of a call
    closing: str  # after the JSON object
    arguments: str  # name of the object's field with the arguments
    # Between the end token of the call and the tool's text, and after that up to the player's turn.
    header: Pieces
    footer: Pieces
    quotes: bool = False  # the tool's text is written as a JSON string


@dataclasses.dataclass(frozen=True)
class Template:
    """The layout of a conversation.

    Without frames every role has a header token of its own, named after the role, and no footer.
    """

    name: str
    ending: Pieces  # a model ends its turn with these; the last one is the end token
    start: Pieces = ()  # beginning of every conversation, before the system message
    user: Frame | None = None
    assistant: Frame | None = None
    system_frame: Frame | None = None  # None: the template has no system message
    system: str = ''  # system message; '': none
    prefix: Pieces = ()  # between header and body of the turn written, the last one
    join: str = '\n\n'  # between turns of one message
    space: str = ''  # what the family's tokenizers put before every text
    system_start: Pieces | None = None  # before the frame of a system message; None: start
    system_joins_user: bool = False  # a system message is the beginning of the first user message
    # Sides whose messages are stripped of surrounding white space; with END only at their end.
    trims: tuple[str, ...] = ()
    default_system: str = ''  # of a derived template: the system message that it adds by itself
    source: Any = dataclasses.field(default=None, repr=False)  # the published template
    tool: ToolForm | None = None  # None: the template has no form for tools
    # Text around a prompt's system message in the first user message, if `system_frame` is None.
    system_in_user: tuple[str, str] = ('', '\n\n')

    @functools.cached_property
    def opening(self) -> Pieces:
        """The beginning of every conversation, with the system message."""
        if not self.system:
            return self.start
        frame, start = self.system_frame, self.system_start
        start = self.start if start is None else start
        system = self.system.strip() if 'system' in self.trims else self.system
        return joined((*start, *frame.header, system, *frame.footer))

    def trimmed(self, side: str, text: str) -> str:
        """Returns the text of a side's message, without the white space that the template trims."""
        if side in self.trims:
            return text.strip()
        return text.rstrip() if f'{side}{END}' in self.trims else text

    def frame(self, role: str, player: str | None) -> Frame:
        """Returns the header and footer of a role's turn as a player (None = neither) reads it."""
        if self.user is None:
            return Frame((Special(f'<{role}>'),), ())
        return self.assistant if self.is_verbatim(role, player) else self.user

    def is_verbatim(self, role: str, player: str | None) -> bool:
        """Returns True if a player reads the turn's tokens unchanged, with its end token.

        With frames, only the player's own turns are: other turns are quoted in a user message,
        without their end token. Without frames, all turns are.
        """
        return self.user is None or player is not None and PLAYER_OF_ROLE.get(role) == player

    def specials(self) -> set[str]:
        """Returns the names of the template's special tokens, without those of role headers."""
        frames = [self.user, self.assistant] if self.user else []
        parts = itertools.chain(
            *((f.header, f.footer) for f in frames), (self.opening, self.ending)
        )
        return {piece.name for part in parts for piece in part if isinstance(piece, Special)}


def with_system(template: Template, system: str) -> Template:
    """Returns the template with another system message; PUBLISHED keeps its own, '' removes it.

    Raises ValueError if the template has no system message.
    """
    if system == PUBLISHED or system == template.system:
        return template
    if template.system_frame is None:
        raise ValueError(
            f'template {template.name!r} has no system message; nearest: {PUBLISHED!r}'
        )
    return dataclasses.replace(template, system=system)


def joined(pieces: Pieces) -> Pieces:
    """Joins adjacent texts of pieces: a tokenizer may merge characters across their border."""
    result: list[str | Special] = []
    for piece in pieces:
        if result and isinstance(piece, str) and isinstance(result[-1], str):
            result[-1] += piece
        else:
            result.append(piece)
    return tuple(result)


def text_of(pieces: Pieces) -> str:
    """Returns pieces as text, special tokens by their names."""
    return ''.join(piece if isinstance(piece, str) else piece.name for piece in pieces)


def _chatml(name: str, system: str, *, prefix: tuple[str, ...] = ()) -> Template:
    start, end = Special('<|im_start|>'), Special('<|im_end|>')
    return Template(
        name,
        ending=(end,),
        user=Frame((start, 'user\n'), (end, '\n')),
        assistant=Frame((start, 'assistant\n'), (end, '\n')),
        system_frame=Frame((start, 'system\n'), (end, '\n')),
        system=system,
        prefix=prefix,
        tool=ToolForm(
            *('<tool_call>\n', '\n</tool_call>', 'arguments'),
            header=('\n', start, 'user\n<tool_response>\n'),
            footer=joined(('\n</tool_response>', end, '\n', start, 'assistant\n', *prefix)),
        ),
    )


def _llama3(name: str, system: str, *, has_tools: bool = False) -> Template:
    end = Special('<|eot_id|>')

    def frame(side: str) -> Frame:
        """Returns the frame of a side's messages."""
        begin, stop = Special('<|start_header_id|>'), Special('<|end_header_id|>')
        return Frame((begin, side, stop, '\n\n'), (end,))

    return Template(
        name,
        ending=(end,),
        start=(Special('<|begin_of_text|>'),),
        user=frame('user'),
        assistant=frame('assistant'),
        system_frame=frame('system'),
        system=system,
        tool=ToolForm(
            *('', '', 'parameters'),
            header=frame('ipython').header,
            footer=(end, *frame('assistant').header),
            quotes=True,
        )
        if has_tools
        else None,
    )


CORRECTION = (
    'There might be an error in the solution above because of lack of understanding of the '
    'question. Please correct the error, if any, and rewrite the solution.'
)
"""The instruction of SCoRe (arXiv 2409.12917, appendix) between an attempt and its refinement,
without the sentence on the form of the answer, which depends on the problems."""

PUBLISHED = 'published'
"""Value of the system setting that keeps the system message of the published template."""

ELENCHUS = Template('elenchus', ending=(Special('</s>'),))
"""<question> q <attempt> y </s> <critique> c </s> <refinement> y' </s>"""

CHATML = _chatml('chatml', '')
"""Qwen 3 that thinks, and any ChatML model without a default system message."""

QWEN = _chatml('qwen2.5', 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.')

QWEN_MATH = _chatml(
    'qwen2.5-math',
    'Please reason step by step, and put your final answer within \\boxed{}.',
)

QWEN3 = _chatml('qwen3', '', prefix=('<think>\n\n</think>\n\n',))
"""Qwen 3 without thinking: the turn to be written begins after an empty block of thoughts.

As published (`enable_thinking=False`), earlier turns have no such block. The block is text, not
special tokens: <think> is an ordinary token of Qwen 3, which a thinking model writes itself.
"""

LLAMA2 = Template(
    'llama2',
    ending=(' ', Special('</s>')),
    user=Frame((Special('<s>'), '[INST]'), (' [/INST]',)),
    assistant=Frame((), (Special('</s>'),)),
    space=' ',
    system_in_user=('<<SYS>>\n', '\n<</SYS>>\n\n'),
)
"""For tokenizers that put a space before every text, such as that between [INST] and question."""

LLAMA3 = _llama3('llama3', '')
LLAMA31 = _llama3(
    'llama3.1',
    'Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n',
    has_tools=True,
)

MISTRAL = Template(
    'mistral',
    ending=(Special('</s>'),),
    start=(Special('<s>'),),
    user=Frame((Special('[INST]'),), (Special('[/INST]'),)),
    assistant=Frame((), (Special('</s>'),)),
    space=' ',
)
"""Mistral 7B v0.3 and later, where [INST] is a special token; the tokenizer adds the spaces."""

GEMMA = Template(
    'gemma',
    ending=(Special('<end_of_turn>'),),
    start=(Special('<bos>'),),
    user=Frame((Special('<start_of_turn>'), 'user\n'), (Special('<end_of_turn>'), '\n')),
    assistant=Frame((Special('<start_of_turn>'), 'model\n'), (Special('<end_of_turn>'), '\n')),
)
"""Gemma 2 and, for text, Gemma 3."""

TEMPLATES = types.MappingProxyType(
    {
        template.name: template
        for template in (
            *(ELENCHUS, CHATML, QWEN, QWEN_MATH, QWEN3),
            *(LLAMA2, LLAMA3, LLAMA31, MISTRAL, GEMMA),
        )
    }
)

SPECIAL_NAMES = frozenset().union(*(template.specials() for template in TEMPLATES.values()))
"""Tokens that are special in every tokenizer that has them, even if its file does not say so."""
