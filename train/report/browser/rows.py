"""What the browser shows of an episode: its row of the index, its text, and its tokens."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from elenchus.data import records
from elenchus.data.critiques import grammars
from elenchus.data.grading.workers import Outcome
from elenchus.data.records import PLAYER_OF_ROLE, Episode, Turn
from elenchus.data.text.printable import printable
from elenchus.sampling.metrics import critic_metrics

Decode = Callable[[Sequence[int]], str]
"""Token ids -> text."""

NUM_BINS = 10
"""Bins of the critic's scores, as in the summaries' calibration."""
TRANSITIONS = ('c2c', 'c2i', 'i2c', 'i2i')
FLAGS = {
    'truncated': 'a turn was cut off at its token limit',
    'unreadable': 'the critique has no readable verdict',
    'no_answer': 'the attempt or refinement has no final answer',
    'verifier': 'the verifier ran out of time or failed',
    'unsure': 'the verifier could not decide',
    'spurious': 'a right answer with a wrong step',
    'no_variance': 'all samples of the question have the same reward',
    'mismatch': "a token's log-probability differs by more than 0.05 between trainer and sampler",
}
"""Name of a flag -> meaning. The bit of a flag is its place."""
MISMATCH = 0.05  # nats
HIDDEN_FACTS = ('verdict_offsets', 'refinement')
"""Facts that say nothing to a reader, or repeat a text."""
_TRUTHS = {True: 1, False: 0, None: None}


def bit(flag: str) -> int:
    """Returns the bit of a flag in a row's `flags`."""
    return 1 << list(FLAGS).index(flag)


def make_row(
    episode: Episode, *, values: Mapping[str, Any] | None, end_id: int | None
) -> dict[str, Any]:
    """Returns the columns of the index of one episode; None = unknown.

    values: the episode's line of values.jsonl, if reinforcement learning stored one. end_id: the
    token that ends a turn; None if it is unknown, and then no turn is flagged as truncated.
    """
    turns = {turn.role: turn for turn in episode.turns}
    attempt, critique = turns.get('attempt'), turns.get('critique')
    before = attempt and attempt.facts.correct
    after = episode.response.facts.correct if attempt or 'refinement' in turns else None
    verdict = critique and critique.facts.verdict
    known = before is not None and after is not None
    score = attempt.facts.score if attempt else None
    steps = _step_scores(episode, attempt)
    reward = values['reward'] if values else (None if after is None else float(after))
    return {
        'level': printable(episode.level),
        'before': _TRUTHS[before],
        'after': _TRUTHS[after],
        'transition': TRANSITIONS.index(f'{"ic"[before]}2{"ic"[after]}') if known else None,
        'verdict': _TRUTHS[verdict],
        'agrees': None if verdict is None or before is None else int(verdict is not before),
        'judged': _judged(critique),
        'claimed': critique.facts.located if critique else None,
        'error': attempt.facts.first_error if attempt else None,
        'score': _rounded(score),
        'bin': None if score is None else critic_metrics.bin_of(score, NUM_BINS),
        'reward': _rounded(reward),
        'advantage': _rounded(_advantage(values)),
        'tokens': sum(len(turn.tokens) for turn in episode.turns if turn.logprobs),
        'steps': steps,
        'step_bins': _bits(steps[::2]),
        'flags': _flags(episode, values=values, end_id=end_id),
    }


def make_text(episode: Episode, decode: Decode) -> dict[str, Any]:
    """Returns the turns of an episode as text: steps with scores, verdicts, and known facts."""
    return {
        'turns': [_turn_text(turn, decode) for turn in episode.turns if turn.role != 'question'],
        'facts': _facts(episode.facts),
    }


def make_tokens(episode: Episode, values: Mapping[str, Any] | None) -> list[dict[str, Any] | None]:
    """Returns token ids, ends of steps and per-token channels of every turn but the question.

    Channels, such as `logprob`, are in whole thousandths. None stands for a turn without channels.
    """
    results = []
    for number, turn in enumerate(episode.turns, 1):
        if turn.role == 'question':
            continue
        channels = {'logprob': turn.logprobs} if turn.logprobs else {}
        stored = (values or {}).get('tokens', {}).get(str(number), {})
        channels |= {name: column for name, column in stored.items() if name != 'trainer'}
        if 'trainer' in stored and turn.logprobs:
            pairs = zip(stored['trainer'], turn.logprobs, strict=True)
            channels['mismatch'] = [None if a is None else a - b for a, b in pairs]
        results.append(
            {
                'ids': list(turn.tokens),
                'ends': list(turn.step_ends),
                'channels': {name: list(map(_milli, column)) for name, column in channels.items()},
            }
            if channels
            else None
        )
    return results


def _turn_text(turn: Turn, decode: Decode) -> dict[str, Any]:
    text: dict[str, Any] = {'role': turn.role, 'facts': _facts(turn.facts) | _tools(turn, decode)}
    if turn.logprobs:
        text['sampled'] = len(turn.tokens)
    if turn.role == 'critique' or not turn.steps:
        words = decode(turn.tokens)
        text['text'] = printable(words)
        if turn.role == 'critique':
            text['critique'] = _critique(words)
        return text
    starts = (0, *turn.step_ends)
    text['steps'] = [
        {'text': printable(decode(turn.tokens[start : step.end]).strip())}
        | ({} if step.score is None else {'score': _rounded(step.score)})
        for start, step in zip(starts, turn.steps, strict=False)
    ]
    return text


def _tools(turn: Turn, decode: Decode) -> dict[str, str]:
    """What the tools of a turn answered, as facts."""
    spans = [(tool, decode(turn.tokens[slice(*tool.text_span)])) for tool in turn.tools]
    return {
        f'tool {i}': printable(f'{tool.name}, {tool.outcome}: {text.strip()}')
        for i, (tool, text) in enumerate(spans, 1)
    }


def _critique(text: str) -> dict[str, Any]:
    """Verdicts of a critique, as its grammar reads them."""
    critique = grammars.grammar_of(text).parse(text)
    return {
        'steps': [
            {
                'sentence': printable(step.sentence),
                'correct': _TRUTHS[step.correct],
                'why': printable(step.explanation),
            }
            for step in critique.steps
        ],
        'final': _TRUTHS[critique.final_correct],
        'why': printable(critique.final_explanation),
    }


def _facts(facts: records.TurnFacts | records.EpisodeFacts) -> dict[str, Any]:
    return {
        name: _plain(value)
        for name, value in dataclasses.asdict(facts).items()
        if value is not None and name not in HIDDEN_FACTS
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {printable(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return _rounded(value)
    return printable(value) if isinstance(value, str) else value


def _judged(critique: Turn | None) -> int | None:
    """Index in SAYS of what a critique says of the answer; None without a critique of a model."""
    if critique is None or (critique.facts.verdict is None and not _was_read(critique)):
        return None
    return {True: 0, False: 1, None: 2}[critique.facts.verdict]


def _was_read(critique: Turn) -> bool:
    """Returns whether a critique was sampled, or parsed, rather than put in another's place."""
    return bool(critique.logprobs) or critique.facts.verdict_offsets is not None


def _step_scores(episode: Episode, attempt: Turn | None) -> list[float]:
    """Flat pairs (2 x bin + right, score) of the steps whose score and truth are known."""
    if attempt is None or attempt.facts.steps_correct is None:
        return []
    known = critic_metrics.known_steps(episode)
    pairs = [(score, right) for score, right in known if score is not None]
    return [
        number
        for score, right in pairs
        for number in (2 * critic_metrics.bin_of(score, NUM_BINS) + right, _rounded(score))
    ]


def _flags(episode: Episode, *, values: Mapping[str, Any] | None, end_id: int | None) -> int:
    turns = [turn for turn in episode.turns if turn.role in PLAYER_OF_ROLE]
    actor = [turn for turn in turns if PLAYER_OF_ROLE[turn.role] == 'actor']
    outcomes = {turn.facts.outcome for turn in actor}
    critiques = [turn for turn in turns if turn.role == 'critique']
    stored = (values or {}).get('tokens', {})
    present = {
        'truncated': end_id is not None
        and any(turn.logprobs and not turn.ends_with(end_id) for turn in turns),
        'unreadable': any(t.facts.verdict is None and _was_read(t) for t in critiques),
        'no_answer': any(t.facts.correct is not None and t.facts.answer is None for t in actor),
        'verifier': bool(outcomes & {Outcome.TIMEOUT, Outcome.ERROR}),
        'unsure': Outcome.UNSURE in outcomes,
        'spurious': any(t.facts.correct and t.facts.steps_correct is False for t in actor),
        'mismatch': any(
            abs(trainer - sampler) > MISMATCH
            for number, turn in enumerate(episode.turns, 1)
            for trainer, sampler in zip(
                stored.get(str(number), {}).get('trainer', ()), turn.logprobs, strict=False
            )
            if trainer is not None
        ),
    }
    return sum(bit(name) for name, is_set in present.items() if is_set)


def _bits(numbers: Sequence[float]) -> int:
    return sum(1 << int(number) for number in set(numbers))


def _advantage(values: Mapping[str, Any] | None) -> float | None:
    """Mean advantage of the steps of the last trained turn."""
    steps = [row for row in (values or {}).get('advantages', {}).values() if row]
    return sum(steps[-1]) / len(steps[-1]) if steps else None


def _rounded(value: float | None) -> float | None:
    return round(float(value), 4) if _is_known(value) else None


def _milli(value: float | None) -> int | None:
    return round(1000 * value) if _is_known(value) else None


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
