"""Tools that a player calls while it writes: which there are, and who answers their calls.

A turn pauses where a call ends (data/tools/call_forms.py), the answer is appended as a turn of the
role `tool`, and the player goes on (paused_turns.py). So the sampler, training and the trainer's
log-probabilities see one sequence, in which the tools' tokens are read and never trained.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from elenchus.data.text import token_words, tool_turns
from elenchus.data.text.chat import Chat
from elenchus.data.tools import calculator
from elenchus.data.tools.answer import Answer
from elenchus.data.tools.call_forms import Call, CallForm, Calls
from elenchus.data.tools.sandbox import Isolation, Sandbox, SandboxSettings
from elenchus.model.ranges import Range, checked
from elenchus.sampling import user_functions
from elenchus.sampling.engine.token_rules import TokenRule
from elenchus.sampling.slots import Slot

FIELD = 'sampling.tools.use'
PYTHON = 'python'


def run_python(code: str) -> Answer:
    """Returns what a program prints, in a sandbox of its own; a Toolbox shares one in a run."""
    with Sandbox(SandboxSettings(2.0, 512, 1000, (), 'namespaces')) as sandbox:
        return sandbox.run([code])[0]


TOOLS = Slot(
    '(text of the call) -> text of the answer',
    {'calculator': calculator.calculate, PYTHON: run_python},
)
Role = Literal['attempt', 'critique', 'refinement']


@dataclasses.dataclass(frozen=True)
@checked('sampling.tools')
class ToolSettings:
    """What a player may call, how, and what programs may use."""

    use: tuple[Annotated[str, TOOLS], ...]
    form: CallForm
    roles: tuple[Role, ...]  # whose turns may call
    max_calls: Annotated[int, Range(1, 1000)]  # that are answered in a turn
    timeout_s: Annotated[float, Range(0.01, 3600.0)]  # of processor time, of a program
    memory_mib: Annotated[int, Range(16, 1 << 20)]  # of a program
    output_chars: Annotated[int, Range(16, 1_000_000)]  # of an answer
    modules: tuple[str, ...]  # that programs may import besides the standard library's
    isolation: Isolation
    workers: Annotated[int, Range(1, 4096)]  # programs that run at once

    def __post_init__(self):
        if self.form in ('equation', 'annotation') and len(self.use) > 1:
            raise ValueError(
                f'sampling.tools.form={self.form!r} names no tool, so it is for one; nearest: '
                "'fenced'"
            )
        names = [self.name_of(reference) for reference in self.use]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f'{FIELD} names the tool {repeated[0]!r} twice')

        if self.form == 'message' and 'critique' in self.roles:
            raise ValueError(
                "sampling.tools.roles has 'critique', whose verdicts are found by their place in "
                "its text: sampling.tools.form='message' is not for it; nearest: 'tags'"
            )
        for i, name in enumerate(self.modules):
            if not all(part.isidentifier() for part in name.split('.')):
                raise ValueError(
                    f'sampling.tools.modules[{i}]={name!r} must be the name of a module, such as '
                    "'sympy'"
                )

    @staticmethod
    def name_of(reference: str) -> str:
        """Returns how a player calls a tool: by the name of its function."""
        return reference.rpartition(':')[2]

    @property
    def sandbox(self) -> SandboxSettings:
        """What a program may use."""
        return SandboxSettings(
            self.timeout_s, self.memory_mib, self.output_chars, self.modules, self.isolation
        )


class Toolbox:
    """The tools of a run; answers many calls at once. Its sandbox starts at the first program."""

    def __init__(self, settings: ToolSettings):
        self.settings = settings
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._functions = {
            settings.name_of(reference): TOOLS.find(reference, FIELD) for reference in settings.use
        }

    @functools.cached_property
    def _sandbox(self) -> Sandbox:
        return Sandbox(self.settings.sandbox, num_workers=self.settings.workers)

    def check(self) -> None:
        """Raises ValueError, in one line, if this machine cannot run programs as it must."""
        if PYTHON in self.settings.use:
            self._sandbox.run(['0'])

    def close(self) -> None:
        """Ends the processes of the sandbox, if there are any."""
        if '_sandbox' in vars(self):
            self._sandbox.close()

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        """Returns the answers of calls, in order."""
        answers = [Answer(call.mistake, _outcome(call.mistake)) for call in calls]
        programs = [i for i, c in enumerate(calls) if not c.mistake and self._is_program(c)]
        if programs:
            results = self._sandbox.run([calls[i].text for i in programs])
            for i, result in zip(programs, results, strict=True):
                answers[i] = result
        for i, call in enumerate(calls):
            if not call.mistake and i not in programs:
                answers[i] = self._call(call)
        self.counts.update((c.name, a.outcome) for c, a in zip(calls, answers, strict=True))
        return answers

    def _is_program(self, call: Call) -> bool:
        return self._functions[call.name] is TOOLS.functions[PYTHON]

    def _call(self, call: Call) -> Answer:
        function, most = self._functions[call.name], self.settings.output_chars
        answer = function(call.text)
        if isinstance(answer, str):
            answer = Answer(answer)
        elif not isinstance(answer, Answer):
            user_functions.refuse(function, answer, 'a text', field=FIELD)
        if len(answer.text) > most:
            text = f'{answer.text[:most]}\nrefused: more than {most} characters of output'
            return Answer(text, 'refused')
        return answer


def _outcome(mistake: str) -> Literal['error', 'refused']:
    return 'refused' if mistake.startswith('refused') else 'error'


@dataclasses.dataclass(frozen=True)
class ToolUse:
    """How the turns of some roles call tools."""

    calls: Calls
    answer: Callable[[Sequence[Call]], Sequence[Answer]]
    max_calls: int

    @property
    def ends_messages(self) -> bool:
        """Whether a call ends its message, with the end token."""
        return self.calls.form == 'message'


def calls_of(settings: ToolSettings, chat: Chat) -> Calls:
    """Returns what finds calls. Raises ValueError if template or vocabulary do not fit the form."""
    names = tuple(map(settings.name_of, settings.use))
    named = f'sampling.tools.form={settings.form!r}'
    if settings.form == 'message' and chat.template.tool is None:
        raise ValueError(
            f'{named}: the template {chat.template.name!r} has no messages of tools; nearest: '
            "'tags'"
        )
    if settings.form == 'message' and chat.prompts.thinking == 'strip':
        raise ValueError(f"{named} reads thoughts as they are; prompts.thinking must be 'keep'")
    calls = Calls(settings.form, names, chat.template.tool, settings.roles)
    for text in calls.samples():
        read = chat.tokenizer.decode(tool_turns.continuation_ids(chat.tokenizer, text))
        if read.split() != text.split():
            raise ValueError(
                f'{named}: the vocabulary has no words for {text!r}; it would read {read!r}'
            )
    return calls


@dataclasses.dataclass(frozen=True)
class PausesAfter:
    """A pause rule: after each of some tokens, with which a call may end."""

    ids: tuple[int, ...]

    def __call__(self, token: jax.Array, logits: jax.Array, where: object) -> jax.Array:
        """Returns whether each token [...] is one of them."""
        return (token[..., None] == jnp.asarray(self.ids)).any(axis=-1)


def pause_rule(calls: Calls, chat: Chat) -> TokenRule | None:
    """Returns the rule that pauses where a call may end; None if it ends its message anyway.

    Raises ValueError if no token ends as calls do.
    """
    if not calls.last_character:
        return None
    ids = token_words.ids_ending_with(chat.tokenizer, calls.last_character)
    if not ids:
        raise ValueError(
            f'sampling.tools.form={calls.form!r}: no token of the vocabulary ends with '
            f'{calls.last_character[-1]!r}, as its calls do'
        )
    return TokenRule(PausesAfter(ids), 'sampling.tools', calls.roles)
