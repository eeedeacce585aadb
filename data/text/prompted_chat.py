"""Renders a conversation under prompts: the messages that a player reads, as token ids.

The player's own turns are assistant messages and keep their ids. The turns of others between two of
them are quoted in one user message, as the instruction of the next own turn lays them out. If that
instruction names a turn before the player's last own turn, the whole conversation is quoted in one
user message instead.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from elenchus.data.records import PLAYER_OF_ROLE, Turn
from elenchus.data.text import chat_templates, message_ids, thoughts
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.chat_templates import Frame, Pieces, Special
from elenchus.data.text.message_ids import Ids
from elenchus.data.text.prompts import FIELD, MAX_PARAGRAPHS, Prompt

if TYPE_CHECKING:
    from elenchus.data.text.chat import Chat

Rendered = list[tuple[Ids, Ids]]
"""For each turn (ids before its body, ids of its body); a quoted turn has no body."""


def render(
    chat: 'Chat', turns: Sequence[Turn], role: str, *, is_open: bool
) -> tuple[Rendered, Ids]:
    """Renders the turns as the player that writes `role` reads them.

    Returns (rendered turns, ids after them). With `is_open` a turn of `role` is written next, and
    the ids after the turns open it: the message before it, its header and its prefix. Otherwise no
    ids follow, and the last turn may be the player's own.
    """
    reader = _Reader(chat, PLAYER_OF_ROLE[role])
    own = [i for i, turn in enumerate(turns) if reader.is_own(turn)]
    last = len(turns) if is_open else own[-1] if own else len(turns)
    written = role if last == len(turns) else turns[last].role
    prompt = reader.prompt_of(written, turns[:last])
    if quotes_earlier(chat, turns[:last], written):
        own = [i for i in own if i >= last]
    rendered: Rendered = [((), ())] * len(turns)
    first = next((i for i in own if i <= last), last)
    opener = reader.prompt_of(turns[first].role, turns[:first]) if first < last else Prompt()
    opener = dataclasses.replace(
        opener, system=prompt.system or opener.system, examples=prompt.examples or opener.examples
    )
    lead, system, header = reader.opening(opener)
    examples = opener.examples
    if examples and system:  # the system text goes into the first user message, an example's
        (text, answer), *others = examples
        examples, system = ((system + text, answer), *others), ''
    lead += reader.examples(examples, written if first == last else turns[first].role, header)
    header = () if examples else header
    before, start = None, 0
    for i in [*own, *([len(turns)] if is_open else [])]:
        next_role = turns[i].role if i < len(turns) else role
        segment = turns[start:i]
        if before is not None:
            lead += reader.close(before)
        lead += reader.message(segment, turns[:i], next_role, system=system, header=header)
        if segment:  # the ids of the message count as those of the last turn that it quotes
            rendered[i - 1], lead = (lead, ()), ()
        lead += reader.header(next_role, turns[:i], is_last=i == last)
        if i == len(turns):
            return rendered, lead
        body = reader.body(turns[i], turns[:i], is_last=i == last)
        rendered[i], lead = (lead, body), ()
        before, start, system, header = turns[i], i + 1, '', ()
    if start < len(turns):  # turns after the last own one, without an instruction
        lead += reader.close(before) if before is not None else ()
        lead += reader.message(turns[start:], turns, None, system=system, header=header)
        rendered[-1] = (lead, ())
    return rendered, ()


def quotes_earlier(chat: 'Chat', turns: Sequence[Turn], role: str) -> bool:
    """Returns whether the instruction of `role` names a turn up to the player's last own turn."""
    player = PLAYER_OF_ROLE[role]
    own = [i for i, turn in enumerate(turns) if PLAYER_OF_ROLE.get(turn.role) == player]
    prompt = chat.prompts.of(role, turns[-1].role if turns else None)
    names = {'attempt' if name == 'paragraphs' else name for name in prompt.fields}
    return bool(own) and bool(names & {turn.role for turn in turns[: own[-1] + 1]})


@dataclasses.dataclass(frozen=True)
class _Reader:
    """One player's view of a conversation."""

    chat: 'Chat'
    player: str

    def is_own(self, turn: Turn) -> bool:
        """Returns whether the player writes turns of this role."""
        return PLAYER_OF_ROLE.get(turn.role) == self.player

    def prompt_of(self, role: str, before: Sequence[Turn]) -> Prompt:
        """Returns the prompt of a turn that follows some turns."""
        return self.chat.prompts.of(role, before[-1].role if before else None)

    def frame(self, role: str) -> Frame:
        """Returns the frame of a role's turn; without frames, its header token is the header."""
        template = self.chat.template
        if template.user is None:
            return Frame((Special(f'<{role}>'),), ())
        is_own = PLAYER_OF_ROLE.get(role) == self.player
        return template.assistant if is_own else template.user

    def opening(self, prompt: Prompt) -> tuple[Ids, str, Pieces]:
        """Returns how a conversation begins: (ids, text, header).

        `ids` open the conversation. `text` begins the first user message: it is the system message
        if the template has no place for one, in tags (Llama 2) or as plain text. `header` replaces
        the header of the first user message if it includes the system message (Gemma 3); () keeps
        that of the frame.
        """
        template, ids = self.chat.template, self.chat.piece_ids
        if prompt.system and template.system_frame is None:
            before, after = template.system_in_user
            return ids(template.opening), f'{before}{prompt.system}{after}', ()
        if prompt.system:
            template = chat_templates.with_system(template, prompt.system)
        if template.system and template.system_joins_user:
            return (), '', template.opening
        return ids(template.opening), '', ()

    def examples(self, examples: Sequence[tuple[str, str]], role: str, header: Pieces) -> Ids:
        """Returns each example as a user message and the turn that answers it."""
        result: Ids = ()
        for text, answer in examples:
            turn = self.chat.text_turn(role, answer)
            text = self.chat.template.trimmed('user', text)
            result += self.framed(tuple(self.chat.tokenizer.encode(text)), header=header)
            result += self.header(role, (), is_last=False, prefix='') + turn.tokens
            result += self.close(turn)
            header = ()
        return result

    def framed(self, content: Ids, *, role: str = 'question', header: Pieces = ()) -> Ids:
        """Returns content in the frame of a role; a `header` given replaces that of the frame."""
        frame, ids = self.frame(role), self.chat.piece_ids
        header = header or frame.header
        lead = ids(header)
        if not self.chat.template.space:
            lead, content = message_ids.merged(
                self.chat.tokenizer, header, tuple(content), lead=lead
            )
        return lead + content + ids(frame.footer, follows=True)

    def header(
        self, role: str, before: Sequence[Turn], *, is_last: bool, prefix: str | None = None
    ) -> Ids:
        """Returns header and prefix of an own turn; only the last has the template's prefix."""
        template = self.chat.template
        prefix = self.prompt_of(role, before).prefix if prefix is None else prefix
        if not is_last and self.is_stripped and thoughts.OPEN in prefix:
            prefix = thoughts.without_thoughts(prefix)
        pieces = (*(template.prefix if is_last else ()), *([prefix] if prefix else []))
        return self.chat.piece_ids((*self.frame(role).header, *chat_templates.joined(pieces)))

    def body(self, turn: Turn, before: Sequence[Turn], *, is_last: bool) -> Ids:
        """Returns the ids of an own turn; earlier ones lose their thoughts if `is_stripped`."""
        text = self.chat.text(turn)
        kept = self.kept_text(turn, before, text)
        if is_last or kept == text:
            return turn.tokens
        ending = turn.tokens[len(self.chat.text_ids(turn)) :]
        return (*self.chat.tokenizer.encode(kept), *ending)

    def close(self, turn: Turn) -> Ids:
        """Returns what stands between an own turn and the next message."""
        footer, ids = self.frame(turn.role).footer, self.chat.piece_ids
        return ids(footer[1:]) if self.chat.is_finished(turn) else ids(footer, follows=True)

    @property
    def is_stripped(self) -> bool:
        """Whether the thoughts of earlier turns are removed."""
        return self.chat.prompts.thinking == 'strip'

    def kept_text(self, turn: Turn, before: Sequence[Turn], text: str) -> str:
        """Returns a turn's text, without its thoughts if they are stripped."""
        if turn.role not in PLAYER_OF_ROLE or not self.is_stripped:
            return text
        prefix = self.prompt_of(turn.role, before).prefix
        if turn.logprobs:  # only a sampled text may begin inside thoughts that the template opened
            prefix = chat_templates.text_of(self.chat.template.prefix) + prefix
        was_opened = thoughts.OPEN in prefix and thoughts.CLOSE not in prefix
        return thoughts.without_thoughts(text, was_opened=was_opened)

    # Messages of the user

    def message(
        self,
        segment: Sequence[Turn],
        before: Sequence[Turn],
        role: str | None,
        *,
        system: str,
        header: Pieces,
    ) -> Ids:
        """Returns the user message before a turn of `role`; it quotes the turns of `segment`."""
        prompt = Prompt() if role is None else self.prompt_of(role, before)
        is_framed = self.chat.template.user is not None
        if not segment:
            is_unframed = not is_framed and not (role == 'refinement' and prompt.instruction)
            if not before or is_unframed:
                return ()
            if role != 'refinement':
                raise ValueError(
                    f'{role} cannot follow {before[-1].role}: a turn of the other side is missing '
                    'between'
                )
            prompt = Prompt(instruction=prompt.instruction or self.chat.correction)
        if not (prompt.instruction or system):
            return self.as_they_are(segment, before, header=header)
        name = segment[-1].role if segment and segment[0].role != 'question' else 'question'
        parts = [part for part in (system, *self.parts(segment, before, prompt)) if part != '']
        if 'user' in self.chat.template.trims:
            parts = _trimmed(parts)
        content = self.encode(parts)
        return self.framed(content, role='question' if is_framed else name, header=header)

    def as_they_are(
        self, segment: Sequence[Turn], before: Sequence[Turn], *, header: Pieces
    ) -> Ids:
        """Returns a message that quotes the turns of a segment, without any instruction."""
        result: Ids = ()
        if self.chat.template.user is None:
            for turn in segment:
                is_sampled = turn.role in PLAYER_OF_ROLE
                body = self.body(turn, before, is_last=False) if is_sampled else turn.tokens
                result += turn.header + body
            return result
        for i, turn in enumerate(segment):
            joined = i + 1 < len(segment)
            if self.kept_text(turn, before, text := self.chat.text(turn)) == text:
                result += self.chat.body(turn, self.player, joined=joined)
            else:
                result += self.encode([turn, self.chat.template.join if joined else ''])
        return self.framed(result, header=header) if segment else ()

    def parts(
        self, segment: Sequence[Turn], before: Sequence[Turn], prompt: Prompt
    ) -> list[str | Turn]:
        """Returns a user message as parts: the texts of the instruction and quoted turns."""
        join = self.chat.template.join
        if not prompt.fields:
            parts = [part for turn in segment for part in (turn, join)]
            return [*parts, prompt.instruction] if prompt.instruction else parts[:-1]
        latest = {turn.role: turn for turn in before}
        parts, missing = [], [] if 'guide' in prompt.fields else ['guide']
        missing = [latest[name] for name in missing if name in {turn.role for turn in segment}]
        for i, piece in enumerate(FIELD.split(prompt.instruction)):
            if i % 2 == 0:
                parts.append(piece)
            elif piece == 'paragraphs':
                parts.append(self.paragraphs(latest['attempt'], before))
            elif piece in latest:
                parts.append(latest[piece])
                if piece == 'question' and missing:
                    parts += [join, missing.pop()]
        return [*parts, *(part for turn in missing for part in (join, turn))]

    def paragraphs(self, turn: Turn, before: Sequence[Turn]) -> str:
        """Returns the steps of an attempt in tags numbered from 0, as in ProcessBench's prompt."""
        starts = (0, *turn.step_ends)
        decode = self.chat.tokenizer.decode
        steps = [decode(turn.tokens[a:b]) for a, b in zip(starts, turn.step_ends, strict=False)]
        if steps:  # thoughts belong to the first step
            steps[0] = self.kept_text(turn, before, steps[0])
        if len(steps) > MAX_PARAGRAPHS:
            steps[MAX_PARAGRAPHS - 1 :] = ['\n'.join(map(str.strip, steps[MAX_PARAGRAPHS - 1 :]))]
        return '\n\n'.join(
            f'<paragraph_{i}>\n{step.strip()}\n</paragraph_{i}>' for i, step in enumerate(steps)
        )

    def encode(self, parts: Sequence[str | Turn]) -> Ids:
        """Returns the ids of a message's parts.

        Sampled turns keep their ids. Adjacent texts and turns that no model wrote are joined and
        encoded together.
        """
        tokenizer, merged = self.chat.tokenizer, []
        parts = [part for part in parts if part != '']
        if len(parts) == 1 and isinstance(parts[0], Turn):
            return self.quoted(parts[0])
        for part in parts:
            if isinstance(part, Turn) and part.role not in PLAYER_OF_ROLE:
                part = self.chat.text(part)  # no model writes it, so it may be encoded again
            elif isinstance(part, Turn):
                part = self.quoted(part)
            if merged and isinstance(part, str) and isinstance(merged[-1], str):
                merged[-1] += part
            else:
                merged.append(part)
        ids: Ids = ()
        for part in merged:
            if not isinstance(part, str):
                ids += part
            elif ids:
                ids += tuple(tokenizers.encode_continuation(tokenizer, part))
            else:
                ids += tuple(tokenizer.encode(part))
        return ids

    def quoted(self, turn: Turn) -> Ids:
        """Returns the ids of a sampled turn's text as another player reads it."""
        text = self.chat.text(turn)
        kept = self.kept_text(turn, (), text)
        return self.chat.text_ids(turn) if kept == text else tuple(self.chat.tokenizer.encode(kept))


def _trimmed(parts: list[str | Turn]) -> list[str | Turn]:
    """Strips white space at the start and end of a message, where the part there is a text."""
    trimmed = list(parts)
    if trimmed and isinstance(trimmed[0], str):
        trimmed[0] = trimmed[0].lstrip()
    if trimmed and isinstance(trimmed[-1], str):
        trimmed[-1] = trimmed[-1].rstrip()
    return trimmed
