"""Inputs of a run: its problems, tokenizer, chat template, critique grammar and judge."""

import dataclasses
import functools
import random
from collections.abc import Mapping, Sequence

from elenchus.data.critiques import grammars, mistakes, oracle
from elenchus.data.critiques.boxed_grammar import BOXED
from elenchus.data.files import jsonl
from elenchus.data.grading import judge as judges
from elenchus.data.grading import verify
from elenchus.data.grading.judge import Judge
from elenchus.data.records import PLAYER_OF_ROLE, Problem, TurnFacts
from elenchus.data.text import auto_chat, chat_templates, thoughts
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.chat import Chat
from elenchus.sampling import tools
from elenchus.sampling.critique_data import annotators
from elenchus.sampling.exploration import proposals
from elenchus.train import distributed
from elenchus.train.config.run_settings import REINFORCED, RunSettings
from elenchus.train.metrics.activity import activity
from elenchus.train.rl import rollouts
from elenchus.train.run import problems as problem_lib
from elenchus.train.run import prompt_sizes
from elenchus.train.run.paths import resolve
from elenchus.train.run.problems import ProblemCounts

GRAMMARS = grammars.GRAMMARS | {'boxed': BOXED}


@dataclasses.dataclass(frozen=True)
class RunInputs:
    """Inputs of a run besides models: problems, their tokenization, and their judge.

    `vocab_size` is the model's, which may be larger than the tokenizer's.
    """

    train_problems: Sequence[Problem]
    test_problems: Sequence[Problem]
    tokenizer: tokenizers.Tokenizer
    chat: Chat
    grammar: grammars.Grammar
    judge: Judge
    vocab_size: int
    counts: Mapping[str, ProblemCounts] = dataclasses.field(default_factory=dict)  # by split
    places: Mapping[Problem, str] = dataclasses.field(default_factory=dict)  # file and line

    @functools.cached_property
    def banned_ids(self) -> tuple[int, ...]:
        """Ids that are never sampled: special tokens except the end token, and unused ids."""
        control = self.tokenizer.special_ids - {self.chat.end_id}
        unused = range(self.tokenizer.vocab_size, self.vocab_size)
        return tuple(sorted(control | set(unused) | self.forbidden_ids))

    @property
    def forbidden_ids(self) -> set[int]:
        """The id that opens a block of thoughts, if these are forbidden and it has one."""
        ids = self.tokenizer.encode(thoughts.OPEN)
        return set(ids) if self.chat.prompts.thinking == 'forbid' and len(ids) == 1 else set()

    @property
    def verdict_ids(self) -> dict[str, int]:
        """Ids of the first tokens of the two verdict words as they follow a space."""
        words = ('correct', 'wrong') if self.grammar is grammars.LAB else ('Correct', 'Wrong')
        correct, wrong = (
            tokenizers.encode_continuation(self.tokenizer, f' {word}')[0] for word in words
        )
        if correct == wrong:
            raise ValueError(
                f'the tokenizer begins the verdicts {words} with the same token, so that steps '
                'cannot be scored: use a model with another tokenizer'
            )
        return {'correct_id': correct, 'wrong_id': wrong}

    def check_verdicts(self) -> None:
        """Raises ValueError if the tokenizer does not tell the verdict words apart."""
        _ = self.verdict_ids  # computing them raises


def load_inputs(settings: RunSettings, verifier: verify.Verifier) -> RunInputs:
    """Loads everything that a run reads besides models. Raises ValueError if something is missing.

    The tokenizer may be trained here, on the training problems.
    """
    source, answer = settings.data.source, settings.data.answer
    verifier.configure(num_workers=answer.workers or None, timeout_s=answer.timeout_s)
    verifier.on_wait = distributed.leave_if_heard
    rows = {split: problem_lib.load_rows(settings, split) for split in ('train', 'test')}
    problem_lib.check_solutions(settings, rows['train'])
    train_problems, test_problems = ([row.problem for row in rows[split]] for split in rows)
    chat = load_chat(settings, load_tokenizer(settings, train_problems))
    chat = dataclasses.replace(chat, prompts=settings.prompts)
    if settings.sampling.tools.use:
        chat = dataclasses.replace(chat, calls=tools.calls_of(settings.sampling.tools, chat))
    return RunInputs(
        train_problems,
        test_problems,
        chat.tokenizer,
        chat,
        critique_grammar(settings),
        judge_on_first_process(judges.make_judge(source, verifier, answer.markers)),
        settings.model.vocab_size,
        counts={split: problem_lib.count(rows[split]) for split in rows},
        places={row.problem: row.place for split in rows for row in rows[split]},
    )


def critique_grammar(settings: RunSettings) -> grammars.Grammar:
    """Returns the grammar of a run's critiques: that of its prompts, or of its problems."""
    of_problems = 'lab' if settings.data.source == 'lab' else 'released'
    return GRAMMARS[settings.prompts.grammar or of_problems]


def load_chat(settings: RunSettings, tokenizer: tokenizers.Tokenizer) -> Chat:
    """Returns the chat of a run, without its prompts.

    Raises ValueError if its template has no system message, or cannot be derived from the model's.
    """
    t = settings.tokenizer
    is_derived = auto_chat.is_derived(t.template)
    place = f'tokenizer.template={t.template!r}' if is_derived else f'tokenizer.system={t.system!r}'
    load = functools.partial(
        auto_chat.load_chat,
        tokenizer,
        resolve(t.path).parent if t.kind == 'file' else None,
        template=t.template,
        correction=settings.reinforce.turns.correction or chat_templates.CORRECTION,
    )
    return jsonl.at_place(place, lambda system: load(system=system), t.system)


def judge_on_first_process(judge: Judge) -> Judge:
    """Returns a judge that runs on the first process and broadcasts its facts.

    Whether a check reaches its time limit is chance, so processes could disagree.
    """

    def judge_once(pairs: Sequence[tuple[Problem, str | None]]) -> list[TurnFacts]:
        """Broadcasts the facts as plain JSON values."""
        values = distributed.run_on_first(lambda: list(map(dataclasses.asdict, judge(pairs))))
        activity.mark('judging')
        return [TurnFacts(**fields) for fields in values]

    return judge_once


def load_tokenizer(settings: RunSettings, problems: Sequence[Problem]) -> tokenizers.Tokenizer:
    """Loads the lab's or a file's tokenizer, or trains one on `problems`.

    Raises ValueError if the file is missing or the model's vocabulary is too small.
    """
    t = settings.tokenizer
    if t.kind == 'lab':
        tokenizer = tokenizers.lab_tokenizer()
    elif t.kind == 'file':
        path = resolve(t.path)
        if not path.is_file():
            raise ValueError(
                f'file not found: tokenizer.path={t.path!r}; it must be a tokenizer.json, or a '
                'tokenizer.model such as scripts/tools/train_tokenizer.py writes'
            )
        tokenizer = tokenizers.load_tokenizer(path)
    else:
        texts = [text for p in problems for text in tokenizer_texts(p)]
        tokenizer = tokenizers.SentencePieceTokenizer.from_bytes(
            tokenizers.train_tokenizer(texts, vocab_size=t.vocab_size, model_type='bpe')
        )
    if tokenizer.vocab_size > settings.model.vocab_size:
        enough = -(-tokenizer.vocab_size // 64) * 64
        raise ValueError(
            f'model.vocab_size={settings.model.vocab_size} is too small for the '
            f'{tokenizer.vocab_size} ids of the tokenizer; set it to {enough} or more'
        )
    return tokenizer


def with_reflection(settings: RunSettings, tokenizer: tokenizers.Tokenizer) -> RunSettings:
    """Returns settings in which the reflection, if used, is token ids instead of text.

    Raises ValueError if the tokenizer cannot spell the text, as where its vocabulary lacks a word.
    """
    engine = settings.sampling.engine
    if not engine.reflection_weight:
        return settings
    text, field = engine.reflection, f'sampling.engine.reflection={engine.reflection!r}'
    try:
        ids = tokenizers.encode_continuation(tokenizer, text)
    except ValueError as error:
        raise ValueError(f'{field}: {error}; begin it with a space or a line break') from None
    read = tokenizer.decode(ids)
    if read.split() != text.split():
        raise ValueError(
            f'{field} must be a text whose words the vocabulary has, behind a space or a line '
            f'break; this one would be {read!r}'
        )
    engine = dataclasses.replace(engine, reflection=tuple(ids))
    sampling = dataclasses.replace(settings.sampling, engine=engine)
    return dataclasses.replace(settings, sampling=sampling)


def question_tokens(
    chat: Chat, problem: Problem, roles: Sequence[str] = tuple(PLAYER_OF_ROLE)
) -> int:
    """Returns the number of tokens that a question adds to the prompts of these turns.

    Where a prompt has more than the conversation, such as an instruction, the additional tokens
    count as part of the question.
    """
    question = chat.question_turns(problem.question)
    if any(map(chat.prompts.concern, ('actor', 'critic'))):
        return prompt_sizes.question_tokens(chat, question, roles)
    rendered = chat.render(question, 'attempt')
    return max(len(lead + body) for lead, body in rendered)


def longest_guide(
    s: RunSettings, chat: Chat, problems: Sequence[Problem], *, grammar: grammars.Grammar
) -> int:
    """Returns the number of tokens of the longest guide for an annotating model; 0 without one."""
    items, last = [], s.sampling.attempt_tokens - 1
    if s.critique.annotator == 'model':
        items += [
            oracle.ConstructedAttempt(p, '', 'RG3', last, kind)
            for p in problems[: s.critique.num_problems]
            for kind in mistakes.kinds(p)
        ]
    is_teacher = s.improve.explore.teacher == 'reference' and grammar is not grammars.LAB
    if is_teacher and 'interactive' in s.stages:
        explored = problems[: s.improve.num_problems]
        items += [oracle.ConstructedAttempt(p, '', 'RG1', None, None) for p in explored]
    guides = [annotators.guidance(item, grammar) for item in items]
    longest = max((len(chat.tokenizer.encode(guide)) for guide in guides), default=0)
    return chat.overhead + longest if guides else 0


def longest_hint(s: RunSettings, chat: Chat, problems: Sequence[Problem]) -> int:
    """Returns the number of tokens of the longest guide for the actor; 0 without one."""
    explored = problems[: s.improve.num_problems]
    hints = [g(p) for name, g in proposals.GUIDES.items() if name in s.stages for p in explored]
    if s.critique.references == 'rewritten' and 'critique' in s.stages:
        hints += [p.solution or '' for p in problems[: s.critique.num_problems]]
    share = s.reinforce.turns.hint_share
    if share and any('actor' in REINFORCED.get(stage, ()) for stage in s.stages):
        hints += [rollouts.hint(p, share) for p in problems]
    longest = max((len(chat.tokenizer.encode(hint)) for hint in hints), default=0)
    return chat.overhead + longest if hints else 0


def tokenizer_texts(problem: Problem) -> tuple[str, ...]:
    """Returns the texts of a problem for training a tokenizer, including the critic's words."""
    if not problem.solution:
        return (problem.question,)
    try:
        flawed = mistakes.corrupt(problem, rng=random.Random(problem.id))
    except mistakes.NoMistakeError:  # then the critic's words are those on the right solution
        flawed = problem.solution
    return problem.question, problem.solution, oracle.annotate(problem, flawed)
