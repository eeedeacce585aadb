"""Inputs of a run: its problems, tokenizer, chat template, critique grammar and judge."""

import dataclasses
import functools
import pathlib
import random
from collections.abc import Sequence

from elenchus.data.critiques import grammars, mistakes, oracle
from elenchus.data.files import jsonl
from elenchus.data.grading import judge as judges
from elenchus.data.grading import verify
from elenchus.data.grading.judge import Judge
from elenchus.data.problems import loading
from elenchus.data.records import Problem, TurnFacts
from elenchus.data.text import chat_templates
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.chat import Chat
from elenchus.sampling.critique_data import annotators
from elenchus.sampling.exploration import proposals
from elenchus.train import distributed
from elenchus.train.config.run_settings import REINFORCED, RunSettings
from elenchus.train.rl import rollouts


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

    @functools.cached_property
    def banned_ids(self) -> tuple[int, ...]:
        """Ids that are never sampled: special tokens except the end token, and unused ids."""
        control = self.tokenizer.special_ids - {self.chat.end_id}
        unused = range(self.tokenizer.vocab_size, self.vocab_size)
        return tuple(sorted(control | set(unused)))

    @property
    def verdict_ids(self) -> dict[str, int]:
        """Ids of the first tokens of the two verdict words as they follow a space."""
        words = ('correct', 'wrong') if self.grammar is grammars.LAB else ('Correct', 'Wrong')
        correct, wrong = (
            tokenizers.encode_continuation(self.tokenizer, f' {word}')[0] for word in words
        )
        if correct == wrong:
            raise ValueError(
                f'the tokenizer begins {words} with the same token, but step rewards need two: '
                'use a larger vocabulary'
            )
        return {'correct_id': correct, 'wrong_id': wrong}


def load_inputs(settings: RunSettings, verifier: verify.Verifier) -> RunInputs:
    """Loads everything that a run reads besides models. Raises ValueError if something is missing.

    The tokenizer may be trained here, on the training problems.
    """
    source = settings.data.source
    train_problems = load_problems(settings, 'train')
    tokenizer = load_tokenizer(settings, train_problems)
    return RunInputs(
        train_problems,
        load_problems(settings, 'test'),
        tokenizer,
        Chat(tokenizer, chat_template(settings)),
        grammars.LAB if source == 'lab' else grammars.RELEASED,
        judge_on_first_process(judges.make_judge(source, verifier)),
        settings.model.vocab_size,
    )


def chat_template(settings: RunSettings) -> chat_templates.Template:
    """Returns the chat template of a run. Raises ValueError if it has no system message."""
    t = settings.tokenizer
    place = f'tokenizer.system={t.system!r}'
    template = chat_templates.TEMPLATES[t.template]
    return jsonl.at_place(place, functools.partial(chat_templates.with_system, template), t.system)


def judge_on_first_process(judge: Judge) -> Judge:
    """Lets the first process judge for all: whether a check runs into its time limit is chance."""

    def judge_once(pairs: Sequence[tuple[Problem, str | None]]) -> list[TurnFacts]:
        """Broadcasts the facts as plain JSON values."""
        values = distributed.run_on_first(lambda: list(map(dataclasses.asdict, judge(pairs))))
        return [TurnFacts(**fields) for fields in values]

    return judge_once


def load_problems(settings: RunSettings, split: str) -> list[Problem]:
    """Loads the training problems, or those of evaluation: split 'train' or 'test'.

    `data.test_split` names the source's split of the latter. Raises ValueError if the source has no
    such split or fewer problems than configured.
    """
    data = settings.data
    count = {'train': data.num_train, 'test': data.num_test}[split]
    source, path = data.source, data.path
    if split == 'test' and data.test_source:
        source, path = data.test_source, data.test_path
    options = loading.load_options(source, data_dir=data.data_dir, path=path)
    chosen = data.test_split if split == 'test' else split
    if source == 'lab':
        sizes = {'train': data.num_train, 'test': data.num_test}
        # A data set of its own, so that a run on validation problems leaves the other one as it is.
        sizes = sizes if chosen in sizes else {chosen: data.num_test}
        options = {
            'data_dir': data.data_dir,
            'seed': data.seed,
            'num_problems': sizes,
            'form': data.form,
        }
    try:
        problems = loading.load(source, split=chosen, **options)
    except ValueError as error:
        remedy = "; or set data.test_split='test'" if chosen == 'validation' else ''
        raise ValueError(f'config.data: {error}{remedy}') from error
    if len(problems) < count:
        raise ValueError(
            f'data.num_{split}={count}, but {source} has only {len(problems)} {chosen} problems'
        )
    return [problems[i] for i in range(count)]


def load_tokenizer(settings: RunSettings, problems: Sequence[Problem]) -> tokenizers.Tokenizer:
    """Loads the lab's or a file's tokenizer, or trains one on `problems`.

    Raises ValueError if the file is missing or the model's vocabulary is too small.
    """
    t = settings.tokenizer
    if t.kind == 'lab':
        tokenizer = tokenizers.lab_tokenizer()
    elif t.kind == 'file':
        if not pathlib.Path(t.path).is_file():
            raise ValueError(
                f'file not found: tokenizer.path={t.path!r}; it must be a tokenizer.json, or a '
                'tokenizer.model such as scripts/tools/train_tokenizer.py writes'
            )
        tokenizer = tokenizers.load_tokenizer(t.path)
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


def longest_question(chat: Chat, problems: Sequence[Problem]) -> int:
    """Returns the number of tokens of the longest question in the prompt of an attempt."""
    turns = (chat.question_turns(p.question) for p in problems)
    return max(len(lead + body) for t in turns for lead, body in chat.render(t, 'attempt'))


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
    share = s.reinforce.turns.hint_share
    if share and any('actor' in REINFORCED.get(stage, ()) for stage in s.stages):
        hints += [rollouts.hint(p, share) for p in problems]
    longest = max((len(chat.tokenizer.encode(hint)) for hint in hints), default=0)
    return chat.overhead + longest if hints else 0


def tokenizer_texts(problem: Problem) -> tuple[str, ...]:
    """Returns the texts of a problem for training a tokenizer, including the critic's words."""
    if not problem.solution:
        return (problem.question,)
    flawed = mistakes.corrupt(problem, rng=random.Random(problem.id))
    return problem.question, problem.solution, oracle.annotate(problem, flawed)
