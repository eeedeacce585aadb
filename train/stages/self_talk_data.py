"""The data of self-talk: criticised attempts, corrected from their first wrong line on.

A talk starts with an attempt and its critique. If a line is called wrong, the actor samples a
refinement that continues from the right lines before it, and the run's annotator criticises that,
until the answer is right.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from elenchus.data.critiques import oracle
from elenchus.data.critiques import self_talk as talk_text
from elenchus.data.critiques.oracle import Annotator
from elenchus.data.critiques.self_talk import RemarkedLine
from elenchus.data.records import Episode, EpisodeFacts, Example, Problem, Turn
from elenchus.model.transformer import Transformer
from elenchus.sampling.critique_data import constructions
from elenchus.sampling.critique_data.splices import splice
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.train.config.run_settings import CritiqueSettings, SelfTalkSettings
from elenchus.train.rl.advantages import over_tokens
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages.annotators import make_annotator


@dataclasses.dataclass(frozen=True)
class Talk:
    """A conversation so far: the lines up to and including the first that is still wrong.

    `episode` ends with the last attempt and its critique. `rejection` is the reason why the talk is
    not trained on.
    """

    episode: Episode
    problem: Problem
    lines: tuple[RemarkedLine, ...] = ()
    corrections: int = 0
    rejection: str | None = None
    done: bool = False

    @property
    def open(self) -> bool:
        """Whether the talk needs another refinement."""
        return not self.done and self.rejection is None


@dataclasses.dataclass(frozen=True)
class TalkBuilder:
    """Builds talks from criticised episodes with an actor and the run's annotator.

    A talk has the facts `corrections`, of its turn, and `rejection`, of the episode: 'unread', a
    line without a clear verdict; 'contradicted', verdicts that contradict the truth or each other;
    'cut_off'; 'too_long'; 'never_right', after all rounds; None if it is trained on.
    """

    settings: SelfTalkSettings
    critique: CritiqueSettings
    actor: Transformer
    annotator_model: Transformer | None
    problems: Mapping[str, Problem]  # by id
    samplers: Samplers
    seed: int

    def build(self, episodes: Sequence[Episode], first: int) -> tuple[list[Episode], int]:
        """Returns a talk for each episode, and the tokens sampled for them."""
        sampler = self.samplers.whole_turns()
        tokens_before = sampler.engine.tokens
        talks = [self._extend(Talk(e, self.problems[e.problem_id]), e) for e in episodes]
        for number in range(self.settings.num_rounds):
            open_talks = {i: talk for i, talk in enumerate(talks) if talk.open}
            if not open_talks:
                break
            seed = derive_seed(self.seed, 'round', number)
            annotator = make_annotator(
                self.critique,
                actor=self.actor,
                model=self.annotator_model,
                samplers=self.samplers,
                seed=seed,
            )(sampler, first)
            refined = self._refine(
                list(open_talks.values()), sampler, seed=seed, ids=[first + i for i in open_talks]
            )
            criticised = self._criticise(refined, annotator)
            for i, talk in zip(open_talks, criticised, strict=True):
                talks[i] = talk
        return [self._as_episode(talk) for talk in talks], sampler.engine.tokens - tokens_before

    def _extend(self, talk: Talk, criticised: Episode) -> Talk:
        """Returns the talk with the criticised lines that follow its last right line."""
        chat, grammar = self.samplers.inputs.chat, self.samplers.inputs.grammar
        attempt, critique = (chat.text(turn) for turn in criticised.turns[-2:])
        lines = talk_text.lines_with_remarks(attempt, grammar.parse(critique), grammar)
        if lines is None:
            return dataclasses.replace(talk, rejection='unread')
        num_right = len(self._right_lines(talk))
        ends_right = talk_text.verdict_of(lines[-1], grammar)
        if len(lines) <= num_right or (ends_right and not criticised.attempt.facts.correct):
            return dataclasses.replace(talk, rejection='contradicted')
        return dataclasses.replace(
            talk,
            episode=criticised,
            lines=(*talk.lines, *lines[num_right:]),
            corrections=talk.corrections + (not ends_right),
            done=bool(ends_right),
        )

    def _right_lines(self, talk: Talk) -> list[str]:
        grammar = self.samplers.inputs.grammar
        return [line.line for line in talk.lines if talk_text.verdict_of(line, grammar)]

    def _refine(
        self, talks: Sequence[Talk], sampler: Sampler, *, seed: int, ids: Sequence[int]
    ) -> list[Talk]:
        """Samples a refinement of each talk that continues from the talk's right lines."""
        inputs = self.samplers.inputs
        texts = [talk_text.join_lines(self._right_lines(talk), inputs.grammar) for talk in talks]
        openings = [
            constructions.turn_from_lines(
                inputs.chat, 'refinement', text.split('\n') if text else []
            )
            for text in texts
        ]
        fits = [self._fits(t.episode.turns, o) for t, o in zip(talks, openings, strict=True)]
        groups = sampler.continue_turns(
            self.actor,
            [t.episode.turns for t, fit in zip(talks, fits, strict=True) if fit],
            [o for o, fit in zip(openings, fits, strict=True) if fit],
            spec=SampleSpec(
                1,
                self.samplers.method(),
                seed,
                [i for i, fit in zip(ids, fits, strict=True) if fit],
            ),
        )
        turns = iter(turn for (turn,) in groups)
        return [
            self._with_refinement(talk, next(turns), sampler)
            if fit
            else dataclasses.replace(talk, rejection='too_long')
            for talk, fit in zip(talks, fits, strict=True)
        ]

    def _fits(self, turns: Sequence[Turn], opening: Turn) -> bool:
        """Whether a refinement that starts with `opening` fits the engine's shapes."""
        s = self.samplers.settings
        prompt = len(self.samplers.inputs.chat.context(turns, 'refinement'))
        return (
            len(opening.tokens) < s.refinement_tokens
            and prompt + len(opening.tokens) <= s.engine.prompt_buckets[-1]
            and prompt + s.refinement_tokens <= s.engine.sequence_length
        )

    def _with_refinement(self, talk: Talk, turn: Turn, sampler: Sampler) -> Talk:
        """Returns the talk with the refinement as its episode's attempt, without critique."""
        inputs, text = self.samplers.inputs, sampler.text(turn)
        if text is None:
            return dataclasses.replace(talk, rejection='cut_off')
        (facts,) = inputs.judge([(talk.problem, text)])
        question = inputs.chat.question_turns(talk.problem.question)
        turn = dataclasses.replace(inputs.chat.text_turn('attempt', text), facts=facts)
        episode = Episode(talk.problem.id, talk.problem.level, (*question, turn))
        return dataclasses.replace(talk, episode=episode)

    def _criticise(self, talks: Sequence[Talk], annotator: Annotator) -> list[Talk]:
        """Extends the open talks by the annotator's critiques of their refinements."""
        chat = self.samplers.inputs.chat
        attempts = [
            oracle.ConstructedAttempt(t.problem, chat.text(t.episode.turns[-1]), 'RG1', None, None)
            for t in talks
            if t.open
        ]
        critiques = iter(annotator(attempts) if attempts else [])
        extended = []
        for talk in talks:
            text = next(critiques) if talk.open else None
            if isinstance(text, str):
                turns = (*talk.episode.turns, chat.text_turn('critique', text))
                talk = self._extend(talk, dataclasses.replace(talk.episode, turns=turns))
            elif talk.open:
                talk = dataclasses.replace(talk, rejection='unread')
            extended.append(talk)
        return extended

    def _as_episode(self, talk: Talk) -> Episode:
        """Returns question -> the whole talk, as an attempt."""
        inputs = self.samplers.inputs
        rejection = 'never_right' if talk.open else talk.rejection
        text = ''  # of an attempt without a critique that fits
        if talk.lines:
            text = splice(self.settings.splice, talk.lines, talk.problem, grammar=inputs.grammar)
        turn = inputs.chat.text_turn('attempt', text)
        if rejection is None and len(turn.tokens) > self.settings.tokens:
            rejection = 'too_long'
        turn = turn.with_facts(corrections=talk.corrections)
        turns = (*inputs.chat.question_turns(talk.problem.question), turn)
        facts = EpisodeFacts(rejection=rejection)
        return Episode(talk.problem.id, talk.problem.level, turns, facts)


def talk_example(samplers: Samplers, talk: Episode, *, settings: SelfTalkSettings) -> Example:
    """Returns question -> talk; lines that it calls wrong have weight 0 unless they are learnt."""
    chat, grammar = samplers.inputs.chat, samplers.inputs.grammar

    def weights(turn: Turn) -> np.ndarray:
        mistakes = talk_text.rejected_lines(chat.text(turn), grammar)
        return over_tokens([0.0 if wrong else 1.0 for wrong in mistakes], turn.step_ends)

    return chat.example(
        talk.turns,
        trained=('attempt',),
        weights=None if settings.learn_mistakes else weights,
        last_only=True,
    )
