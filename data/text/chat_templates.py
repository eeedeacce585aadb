"""Chat templates as frozen values: what stands around the text of a turn, by model family.

A family knows two sides, user and assistant. For the actor the question, the guide and the critique
are the user's and attempt and refinement the assistant's; for the critic the critique alone is the
assistant's. What one side says in a row is one message. The forms are those that the families
publish with their models (`chat_template` of tokenizer_config.json), without tools.
"""

import dataclasses
import itertools
import types

PLAYERS = types.MappingProxyType({'attempt': 'actor', 'critique': 'critic', 'refinement': 'actor'})
"""Who writes a role's turn; a question and a guide are written by no player."""


@dataclasses.dataclass(frozen=True)
class Special:
    """A special token, by its name."""

    name: str


Pieces = tuple[str | Special, ...]
"""Special tokens and text."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """What stands before and after each message of a side."""

    header: Pieces
    footer: Pieces


@dataclasses.dataclass(frozen=True)
class Template:
    """How a conversation is laid out.

    `ending` is what a player ends its turn with, the end token last; what of the footer the turn
    has written is not repeated. `opening` begins a conversation; `join` stands between turns of one
    message. Without frames each role has a header token of its own, named for it, and no footer.
    """

    name: str
    ending: Pieces
    opening: Pieces = ()
    user: Frame | None = None
    assistant: Frame | None = None
    join: str = '\n\n'

    def frame(self, role: str, player: str | None) -> Frame:
        """What stands around a role's turn as a player reads it."""
        if self.user is None:
            return Frame((Special(f'<{role}>'),), ())
        return self.assistant if self.owns(role, player) else self.user

    def owns(self, role: str, player: str | None) -> bool:
        """Whether a turn keeps its own end token: all do, save what is quoted to the player."""
        return self.user is None or player is not None and PLAYERS.get(role) == player

    def specials(self) -> set[str]:
        """The names of its special tokens, those of role headers left out."""
        frames = [self.user, self.assistant] if self.user else []
        parts = itertools.chain(
            *((f.header, f.footer) for f in frames), (self.opening, self.ending)
        )
        return {piece.name for part in parts for piece in part if isinstance(piece, Special)}


def _chatml(name: str, system: str) -> Template:
    start, end = Special('<|im_start|>'), Special('<|im_end|>')
    return Template(
        name,
        ending=(end,),
        opening=(start, f'system\n{system}', end, '\n') if system else (),
        user=Frame((start, 'user\n'), (end, '\n')),
        assistant=Frame((start, 'assistant\n'), (end, '\n')),
    )


def _llama3(name: str, system: str) -> Template:
    end = Special('<|eot_id|>')

    def header(side: str, text: str = '') -> Pieces:
        start, stop = Special('<|start_header_id|>'), Special('<|end_header_id|>')
        return start, side, stop, f'\n\n{text}'

    begin = Special('<|begin_of_text|>')
    return Template(
        name,
        ending=(end,),
        opening=(begin, *header('system', system), end) if system else (begin,),
        user=Frame(header('user'), (end,)),
        assistant=Frame(header('assistant'), (end,)),
    )


ELENCHUS = Template('elenchus', ending=(Special('</s>'),))
"""<question> q <attempt> y </s> <critique> c </s> <refinement> y' </s>"""

CHATML = _chatml('chatml', '')
"""Qwen 3 Instruct, and any ChatML model without a system message of its own."""

QWEN = _chatml('qwen2.5', 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.')

LLAMA2 = Template(
    'llama2',
    ending=(' ', Special('</s>')),
    user=Frame((Special('<s>'), '[INST]'), (' [/INST]',)),
    assistant=Frame((), (Special('</s>'),)),
)
"""For tokenizers that put a space before text: it stands between [INST] and the question."""

LLAMA3 = _llama3('llama3', '')
LLAMA31 = _llama3('llama3.1', 'Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n')

MISTRAL = Template(
    'mistral',
    ending=(Special('</s>'),),
    opening=(Special('<s>'),),
    user=Frame((Special('[INST]'),), (Special('[/INST]'),)),
    assistant=Frame((), (Special('</s>'),)),
)
"""From Mistral 7B v0.3 on, where [INST] is a special token; the tokenizer puts the spaces."""

GEMMA = Template(
    'gemma',
    ending=(Special('<end_of_turn>'),),
    opening=(Special('<bos>'),),
    user=Frame((Special('<start_of_turn>'), 'user\n'), (Special('<end_of_turn>'), '\n')),
    assistant=Frame((Special('<start_of_turn>'), 'model\n'), (Special('<end_of_turn>'), '\n')),
)
"""Gemma 2 and, for text, Gemma 3."""

TEMPLATES = types.MappingProxyType(
    {
        template.name: template
        for template in (ELENCHUS, CHATML, QWEN, LLAMA2, LLAMA3, LLAMA31, MISTRAL, GEMMA)
    }
)

SPECIALS = frozenset().union(*(template.specials() for template in TEMPLATES.values()))
"""Names that are special in every tokenizer that has them, however its file lists them."""
