"""A chat: a question, then attempt, critique and refinement, each shown while it is sampled."""

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import TextIO

from elenchus.data.critiques import grammars
from elenchus.data.grading import answers
from elenchus.data.records import Episode, Problem
from elenchus.data.text.chat import Chat
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.engine.engine import Engine
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.train.benchmarks.opening import Bench

GREEN, RED, BOLD, PLAIN = '\033[32m', '\033[31m', '\033[1m', '\033[0m'
_VERDICT = re.compile(r'(?<=[:;])[ \t*]*(correct|wrong|incorrect)\b', re.IGNORECASE)


def shown(text: str) -> str:
    """Returns text with control characters escaped, except line breaks and tabs.

    No escape sequence and no bidirectional mark of a model's text reaches the terminal.
    """
    return ''.join(
        c if c in '\n\t' or unicodedata.category(c) not in ('Cc', 'Cf', 'Cs', 'Zl', 'Zp')
        else f'\\x{ord(c):02x}' if ord(c) < 256 else f'\\u{ord(c):04x}'
        for c in text
    )  # fmt: skip


def coloured(text: str) -> str:
    """Returns a line of a critique with its verdicts in colour."""

    def colour(match: re.Match) -> str:
        colour_of_word = GREEN if match[1].lower() == 'correct' else RED
        return f'{colour_of_word}{match[0]}{PLAIN}'

    return _VERDICT.sub(colour, text)


@dataclasses.dataclass
class Stream:
    """Writes a turn while it grows, in whole characters, and in whole lines if it is coloured."""

    out: TextIO
    chat: Chat
    colour: Callable[[str], str] | None = None
    written: int = 0  # characters of the turn's text

    def show(self, tokens: Iterable[int], *, is_last: bool = False) -> None:
        """Writes what the turn's tokens add to what has been written."""
        ids = [t for t in tokens if t != self.chat.end_id]
        text = self.chat.tokenizer.decode(ids)
        if not is_last:
            text = text.rstrip('\ufffd')  # the first bytes of a character
            text = text[: text.rfind('\n') + 1] if self.colour else text
        if len(text) > self.written:
            new, self.written = shown(text[self.written :]), len(text)
            self.out.write(self.colour(new) if self.colour else new)
            self.out.flush()


@dataclasses.dataclass
class Session:
    """Answers questions one by one; `is_terminal` says whether verdicts are coloured."""

    bench: Bench
    out: TextIO
    is_terminal: bool
    question_tokens: int  # of the longest question that is answered
    num_questions: int = 0

    def __post_init__(self):
        samplers = self.bench.samplers(self.source)
        self.samplers, self.sampler = samplers, samplers.whole_turns()
        self.engine: Engine = self.sampler.engine
        self.engine.on_chunk = lambda: None  # the text itself shows the progress

    @property
    def source(self) -> str:
        """The source of problems whose grammar and answers are used: that of the model."""
        return 'lab' if self.bench.player.tokenizer_path is None else 'jsonl'

    def answer(self, question: str) -> Episode:
        """Answers one question; without a critic by an attempt alone. Returns the episode."""
        problem = Problem(f'question/{self.num_questions}', question, '', '', 0, 'jsonl')
        chat = self.bench.chat
        episode = Episode(problem.id, 0, chat.question_turns(question))
        episode = self._turn(episode, 'attempt', 'attempt')
        if self.bench.critic is None:
            self._tell_answer(episode)
            return episode
        episode = self._turn(episode, 'critique', 'critique')
        text = chat.text(episode.critique)
        grammar = self.samplers.inputs.grammar
        verdict = grammar.parse(text).final_correct if chat.is_finished(episode.critique) else None
        self._tell_verdict(grammar, text, verdict)
        if verdict is not True:
            episode = self._turn(episode, 'refinement', 'refinement')
        self._tell_answer(episode)
        return episode

    def _turn(self, episode: Episode, role: str, title: str) -> Episode:
        """Samples a turn, showing it, and adds it to the episode."""
        player = self.bench.critic if role == 'critique' else self.bench.actor
        self.out.write(self._bold(f'\n{title}') + '\n')
        stream = Stream(
            self.out, self.bench.chat, coloured if role == 'critique' and self.is_terminal else None
        )
        self.engine.on_tokens = lambda request, tokens: stream.show(tokens)
        spec = SampleSpec(
            1, self.samplers.method(), self.bench.settings.seed, first_id=self.num_questions
        )
        ((turn,),) = self.sampler.sample_turns(player, [episode.turns], role, spec=spec)
        stream.show(turn.tokens, is_last=True)
        if not self.bench.chat.is_finished(turn):
            self.out.write(f'\n[cut off after {len(turn.tokens)} tokens]')
        self.out.write('\n')
        return episode_lib.add_turn(episode, turn)

    def _tell_verdict(self, grammar: grammars.Grammar, text: str, verdict: bool | None) -> None:
        first = grammars.first_error(grammar.parse(text))
        words = {True: 'correct', False: 'wrong', None: 'none that can be read'}[verdict]
        place = '' if first is None else f', first wrong step: {first + 1}'
        line = f'[verdict: {words}{place}]'
        colour = GREEN if verdict else RED
        self.out.write((f'{colour}{line}{PLAIN}' if self.is_terminal else line) + '\n')

    def _tell_answer(self, episode: Episode) -> None:
        markers = self.bench.settings.data.answer.markers
        answer = answers.extract_answer(self.bench.chat.text(episode.response), markers)
        text = 'none' if answer is None else shown(answer)
        self.out.write(self._bold(f'[answer: {text}]') + '\n')
        self.out.flush()
        self.num_questions += 1

    def _bold(self, text: str) -> str:
        return f'{BOLD}{text}{PLAIN}' if self.is_terminal else text


def chat(session: Session, lines: Iterable[str], *, is_prompted: bool) -> int:
    """Answers every line that is not blank or too long; with `is_prompted`, prints prompts.

    Returns how many questions the session has answered.
    """
    chat_template = session.bench.chat
    if is_prompted:
        session.out.write('Type a question, or press Ctrl-D to leave.\n> ')
        session.out.flush()
    for line in lines:
        question = line.strip()
        if question:
            size = len(chat_template.tokenizer.encode(question))
            if size > session.question_tokens:
                session.out.write(
                    f'[the question has {size} tokens, more than {session.question_tokens}: raise '
                    '--question_tokens]\n'
                )
            else:
                session.answer(question)
        if is_prompted:
            session.out.write('> ')
            session.out.flush()
    return session.num_questions
