"""What a run is given: its problems, its tokenizer, and how long their texts become."""

import pathlib
import random
from collections.abc import Sequence

from elenchus.data.critiques import grammars, mistakes, oracle
from elenchus.data.problems import loading
from elenchus.data.records import Problem
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.chat import Chat
from elenchus.sampling.critique_data import annotators
from elenchus.sampling.exploration import proposals
from elenchus.train.config.run_settings import REINFORCED, RunSettings
from elenchus.train.rl import rollouts


def load_problems(settings: RunSettings, split: str) -> list[Problem]:
    """The problems of a split that a run is told to take. Raises ValueError where they are not."""
    data = settings.data
    count = {'train': data.num_train, 'test': data.num_test}[split]
    source, path = data.source, data.path
    if split == 'test' and data.test_source:
        source, path = data.test_source, data.test_path
    options = loading.options_of(source, data_dir=data.data_dir, path=path)
    if source == 'lab':
        sizes = {'train': data.num_train, 'test': data.num_test}
        options = {'data_dir': data.data_dir, 'seed': data.seed, 'num_problems': sizes}
    try:
        found = loading.load(source, split=split, **options)
    except ValueError as error:
        raise ValueError(f'config.data: {error}') from error
    if len(found) < count:
        raise ValueError(
            f'data.num_{split}={count}, but {source} has {len(found)} {split} problems'
        )
    return [found[i] for i in range(count)]


def load_tokenizer(settings: RunSettings, asked: Sequence[Problem]) -> tokenizers.Tokenizer:
    """The lab's, a file's, or one trained on problems. Raises ValueError where ids have no room."""
    t = settings.tokenizer
    if t.kind == 'lab':
        tokenizer = tokenizers.lab_tokenizer()
    elif t.kind == 'file':
        if not pathlib.Path(t.path).is_file():
            raise ValueError(
                f'tokenizer.path={t.path!r} is no file: give a tokenizer.json, or a '
                'tokenizer.model such as scripts/tools/train_tokenizer.py makes'
            )
        tokenizer = tokenizers.load_tokenizer(t.path)
    else:
        texts = [text for p in asked for text in tokenizer_texts(p)]
        tokenizer = tokenizers.SentencePieceTokenizer.from_bytes(
            tokenizers.train_tokenizer(texts, vocab_size=t.vocab_size, model_type='bpe')
        )
    if tokenizer.vocab_size > settings.model.vocab_size:
        raise ValueError(
            f'the tokenizer has {tokenizer.vocab_size} ids, model.vocab_size='
            f'{settings.model.vocab_size} is too small: set it to '
            f'{-(-tokenizer.vocab_size // 64) * 64} or more'
        )
    return tokenizer


def longest_question(chat: Chat, asked: Sequence[Problem]) -> int:
    """Tokens of the longest question, as an attempt opens with it."""
    turns = (chat.question(p.question) for p in asked)
    return max(len(lead + body) for t in turns for lead, body in chat.rendered(t, 'attempt'))


def longest_guide(
    s: RunSettings, chat: Chat, asked: Sequence[Problem], grammar: grammars.Grammar
) -> int:
    """Tokens of the longest guide that an annotating model may be given; 0 without one."""
    if s.critique.annotator != 'model':
        return 0
    last = s.sampling.attempt_tokens - 1
    guides = (
        annotators.guidance(oracle.Path(p, '', 'RG3', last, kind), grammar)
        for p in asked[: s.critique.num_problems]
        for kind in mistakes.kinds(p)
    )
    return chat.overhead + max(len(chat.tokenizer.encode(guide)) for guide in guides)


def longest_hint(s: RunSettings, chat: Chat, asked: Sequence[Problem]) -> int:
    """Tokens of the longest guide that the actor is shown; 0 without one."""
    explored = asked[: s.improve.num_problems]
    hints = [g(p) for name, g in proposals.GUIDES.items() if name in s.stages for p in explored]
    share = s.reinforce.turns.hint_share
    if share and any('actor' in REINFORCED.get(stage, ()) for stage in s.stages):
        hints += [rollouts.hint(p, share) for p in asked]
    longest = max((len(chat.tokenizer.encode(hint)) for hint in hints), default=0)
    return chat.overhead + longest if hints else 0


def tokenizer_texts(problem: Problem) -> tuple[str, ...]:
    """What a tokenizer learns from a problem: the critic's words too, its verdicts first of all."""
    if not problem.solution:
        return (problem.question,)
    flawed = mistakes.corrupt(problem, rng=random.Random(problem.id))
    return problem.question, problem.solution, oracle.annotate(problem, flawed)
