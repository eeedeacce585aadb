r"""Prompts: system messages, instructions and examples with which untrained models play a role.

A prompt belongs to the role of the turn that is written under it. Its instruction is text with the
names of turns in braces, as in `{question} Put the answer into \boxed{}.`; other braces are text.
An instruction that names no turn is appended to the message. `guide` is the prompt of the turn that
is written directly after a guide. configs/prompts.py has published prompts.
"""

import dataclasses
import difflib
import re
from typing import Literal

from elenchus.data.text.thoughts import CLOSE, OPEN, Thinking

FIELDS = ('question', 'guide', 'attempt', 'paragraphs', 'critique')
"""Names in braces: turns, and `paragraphs`, the steps of the attempt in numbered tags."""

FIELD = re.compile(rf'\{{({"|".join(FIELDS)})\}}')
MAX_PARAGRAPHS = 64
"""Numbered paragraphs of an attempt; the last one has all further steps."""

GrammarName = Literal['', 'released', 'worked', 'boxed']

_BRACES = re.compile(r'\{([a-z_]{3,20})\}')
_NEEDED = {
    'attempt': ('question',),
    'guide': ('guide',),
    'critique': ('question', 'attempt'),
    'refinement': ('critique',),
}
_KNOWN = {
    'attempt': ('question', 'guide'),
    'guide': FIELDS,
    'critique': FIELDS[:-1],
    'refinement': FIELDS,
}
_SYNONYMS = {
    **dict.fromkeys(('problem', 'input', 'query'), 'question'),
    **dict.fromkeys(('solution', 'response', 'answer'), 'attempt'),
    **dict.fromkeys(('tagged_response', 'steps'), 'paragraphs'),
    **dict.fromkeys(('critic', 'feedback'), 'critique'),
}


@dataclasses.dataclass(frozen=True)
class Prompt:
    """The prompt of one role; '' is none."""

    system: str = ''  # system message; '': that of the template
    instruction: str = ''  # the user's message, with names of turns in braces
    prefix: str = ''  # beginning of the turn, which is not sampled and not trained
    examples: tuple[tuple[str, str], ...] = ()  # (message, turn), shown before

    @property
    def fields(self) -> tuple[str, ...]:
        """The names in braces that the instruction has, in order."""
        return tuple(FIELD.findall(self.instruction))


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The prompts of all roles, and the treatment of thoughts; the default changes nothing."""

    attempt: Prompt = Prompt()
    guide: Prompt = Prompt()
    critique: Prompt = Prompt()
    refinement: Prompt = Prompt()
    thinking: Thinking = 'keep'
    grammar: GrammarName = ''  # of critiques; '': that of the problems

    def of(self, role: str, last_role: str | None) -> Prompt:
        """Returns the prompt of a turn that follows a turn of another role."""
        is_guided = last_role == 'guide' and self.guide != Prompt()
        return self.guide if is_guided else getattr(self, role)

    def concern(self, player: str | None) -> bool:
        """Returns whether the prompts change anything that a player reads or writes."""
        roles = {'actor': ('attempt', 'guide', 'refinement'), 'critic': ('guide', 'critique')}
        if player is None:
            return False
        prompted = any(getattr(self, role) != Prompt() for role in roles[player])
        return prompted or self.thinking == 'strip'


ROLES = tuple(_NEEDED)
"""Roles that have a prompt."""


def check_prompts(prompts: Prompts) -> None:
    """Raises ValueError, naming the field, if an instruction cannot be filled in."""
    for role, needed in _NEEDED.items():
        prompt = getattr(prompts, role)
        place = f'prompts.{role}.instruction'
        _check_braces(place, prompt.instruction, _KNOWN[role])
        repeated = [name for name in prompt.fields if prompt.fields.count(name) > 1]
        if repeated:
            raise ValueError(f'{place} has {{{repeated[0]}}} twice; leave one out')
        present = ['attempt' if name == 'paragraphs' else name for name in prompt.fields]
        if present.count('attempt') > 1:
            raise ValueError(f'{place} has both {{attempt}} and {{paragraphs}}; leave one out')
        missing = [name for name in needed if name not in present]
        if prompt.fields and missing:
            raise ValueError(
                f'{place} has {{{prompt.fields[0]}}} but not {{{missing[0]}}}, which the model '
                f'would not see: add it, or use no names in braces'
            )
        # An empty block is allowed: the model reads that it has thought.
        is_open = OPEN in prompt.prefix and CLOSE not in prompt.prefix
        if prompts.thinking == 'forbid' and is_open:
            raise ValueError(
                f'prompts.{role}.prefix={prompt.prefix!r} opens a block of thoughts, which '
                "prompts.thinking='forbid' forbids; nearest: 'strip'"
            )


def _check_braces(place: str, text: str, known: tuple[str, ...]) -> None:
    """Raises ValueError for a name in braces that is probably meant to be one of a turn."""
    for name in _BRACES.findall(text):
        if name in known:
            continue
        near = _SYNONYMS.get(name) or next(iter(difflib.get_close_matches(name, FIELDS, n=1)), None)
        if near is None:
            continue
        if near not in known or name in FIELDS:
            listed = ', '.join(f'{{{field}}}' for field in known)
            raise ValueError(f'{place} has {{{name}}}, which is not known there; use {listed}')
        raise ValueError(f'{place} has {{{name}}}; did you mean {{{near}}}?')
