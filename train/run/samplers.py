"""Factory of everything that samples or scores: samplers, sampling methods, the step scorer."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from elenchus.data.critiques import self_talk
from elenchus.data.records import Problem, TurnFacts
from elenchus.data.tools.answer import Answer
from elenchus.data.tools.call_forms import Call, Calls
from elenchus.model.transformer import Transformer
from elenchus.sampling import tools
from elenchus.sampling.corrections import Correction
from elenchus.sampling.engine import sampling_methods, token_rules
from elenchus.sampling.engine.engine import Engine
from elenchus.sampling.engine.sampling_methods import Greedy, Method, TemperatureSampling
from elenchus.sampling.engine.token_rules import TokenRule
from elenchus.sampling.engine.work import Work
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.paused_turns import AFTER_PAUSES, FIELD, AfterPause
from elenchus.sampling.step_scores import StepScorer
from elenchus.sampling.trees.search import TreeSearch
from elenchus.train import distributed
from elenchus.train.config.sampling_settings import SamplingSettings
from elenchus.train.metrics import speed
from elenchus.train.metrics.activity import activity
from elenchus.train.run.inputs import RunInputs


@dataclasses.dataclass(frozen=True)
class Samplers:
    """Makes samplers for the run's chat template, with the run's engine settings."""

    settings: SamplingSettings
    inputs: RunInputs
    engines: list[Engine] = dataclasses.field(default_factory=list)  # all that were made

    def whole_turns(self) -> Sampler:
        """Returns a sampler of whole turns."""
        return self._sampler(self.inputs.chat.end_id)

    def lines(self) -> Sampler:
        """Returns a sampler that also stops at line breaks, so that it samples one step.

        Its turns do not pause: who samples steps decides after each how it goes on.
        """
        newlines = sorted(self.inputs.tokenizer.newline_ids)
        sampler = self._sampler(self.inputs.chat.end_id, *newlines)
        return dataclasses.replace(sampler, after_pause=None, tools=None)

    def pair(self, actor: Transformer, critic: Transformer) -> ModelPair:
        """Returns actor and critic with a new sampler."""
        inputs = self.inputs
        return ModelPair(self.whole_turns(), actor, critic, inputs.judge, inputs.grammar)

    def of_talks(self, max_tokens: int) -> 'Samplers':
        """Returns these samplers for an actor whose attempts are self-talk.

        An attempt has up to `max_tokens` tokens, and is judged by the lines that it ends with.
        """
        inputs, grammar = self.inputs, self.inputs.grammar

        def judge(pairs: Sequence[tuple[Problem, str | None]]) -> list[TurnFacts]:
            texts = ((problem, text or '') for problem, text in pairs)
            return inputs.judge([(p, self_talk.corrected_attempt(t, grammar)) for p, t in texts])

        settings = dataclasses.replace(self.settings, attempt_tokens=max_tokens)
        inputs_of_talks = dataclasses.replace(inputs, judge=judge)
        return dataclasses.replace(self, settings=settings, inputs=inputs_of_talks)

    def method(self, temperature: float | None = None) -> Method:
        """Returns the run's sampling method, at another temperature if one is given."""
        s = self.settings
        temperature = s.temperature if temperature is None else temperature
        method = TemperatureSampling(temperature, s.top_k, s.top_p, s.min_p, self.inputs.banned_ids)
        return sampling_methods.with_rules(method, *self.rules)

    def greedy(self) -> Method:
        """Returns greedy decoding."""
        return sampling_methods.with_rules(Greedy(self.inputs.banned_ids), *self.rules)

    def checked(self) -> 'Samplers':
        """Returns these; raises ValueError if a rule or a tool does not fit run or machine."""
        self.method()  # looks up the functions and the ids of their words
        Correction.of(self._after_pause_function)
        if self.settings.tools.use:
            distributed.run_on_first(self.toolbox.check)
        return self

    @functools.cached_property
    def rules(self) -> tuple[TokenRule | None, TokenRule | None]:
        """The rules of logits and pauses. Raises ValueError if one does not fit the run."""
        s, inputs = self.settings, self.inputs
        return (
            token_rules.logits_rule(s.logits, inputs.tokenizer, inputs.vocab_size),
            tools.pause_rule(self.calls, inputs.chat)
            if s.tools.use
            else token_rules.pause_rule(s.pause, inputs.tokenizer, inputs.vocab_size),
        )

    @property
    def calls(self) -> Calls:
        """What finds calls of tools. Raises ValueError if template or vocabulary do not fit."""
        chat = self.inputs.chat
        return chat.calls or tools.calls_of(self.settings.tools, chat)

    @functools.cached_property
    def toolbox(self) -> tools.Toolbox:
        """The tools that players may call."""
        return tools.Toolbox(self.settings.tools)

    def _answer(self, calls: Sequence[Call]) -> list[Answer]:
        """Answers calls on the first process: clocks and limits are of one machine."""
        answers = distributed.run_on_first(lambda: [list(a) for a in self.toolbox.answer(calls)])
        return [Answer(*answer) for answer in answers]

    def scorer(self) -> StepScorer:
        """Returns what turns critiques into step rewards."""
        return StepScorer(self.settings.score, self.inputs.verdict_ids)

    def trees(self) -> TreeSearch:
        """Returns what searches trees."""
        s = self.settings
        lines = self.lines() if s.tree.grow == 'line' else None
        return TreeSearch(s.tree, lines, self.scorer(), s.prompt_room)

    def counts(self) -> tuple[int, int]:
        """Returns the tokens sampled and the decode steps taken so far, by all engines."""
        return sum(e.tokens for e in self.engines), sum(e.steps for e in self.engines)

    def work(self) -> Work:
        """Returns what all engines have done so far."""
        return sum((e.work for e in self.engines), Work())

    @functools.cached_property
    def on_chunk(self) -> Callable[[], None]:
        """Shows the progress of sampling; the engines call it after every chunk."""
        return speed.SamplingProgress(self.work)

    @property
    def _after_pause_function(self) -> AfterPause:
        return AFTER_PAUSES.find(self.settings.after_pause, FIELD)

    def _after_chunk(self) -> None:
        self.on_chunk()
        activity.mark('sampling')
        distributed.leave_if_preempted()

    def _sampler(self, *stop_ids: int) -> Sampler:
        engine = Engine(self.settings.sampler_engine, stop_ids=stop_ids)
        engine.on_chunk = self._after_chunk
        self.engines.append(engine)
        s, after_pause = self.settings.tools, self._after_pause_function
        use = tools.ToolUse(self.calls, self._answer, s.max_calls) if s.use else None
        return Sampler(engine, self.inputs.chat, self.settings.limits, after_pause, use)
