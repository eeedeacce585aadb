"""Computes the uptake figures: what a critique's words, its gate and the extra turn contribute."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from elenchus.data.records import Episode
from elenchus.data.text.chat import Chat
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.metrics import statistics
from elenchus.sampling.test_time.uptake import CONDITIONS, Sources
from elenchus.train.config.run_settings import EvaluateSettings
from elenchus.train.stages.evaluate_figures import by_level, indices_by_level

CONTRASTS = {
    'words': ('own', 'shuffled'),
    'gate': ('own', 'always'),
    'turn': ('shuffled', 'fresh_attempt'),
    'explanation': ('own', 'blanked'),
    'rival': ('own', 'fresh_attempt'),
    'headroom': ('annotated', 'own'),
}
"""Name -> the two conditions of the difference; see docs/methods.md, "Uptake"."""
READS = 0.5
"""Uptake from which on the refiner is said to read critiques."""

Values = Mapping[str, np.ndarray]
"""Condition -> a value of each attempt in each sample, [attempts, samples]."""


def summarise(
    s: EvaluateSettings, sources: Sources, sampled: Mapping[str, Sequence[Episode]]
) -> dict:
    """Computes every figure of the conditions; `sampled` has the episodes of each.

    With fewer than two questions to refine nothing can be compared: only counts and a warning.
    """
    counts = _counts(s, sources)
    if not sources.comparable:
        return counts | {'warning': f'no comparison: {_few(counts)}'}
    chat = sources.setup.models.sampler.chat
    problems = sources.problems[:: counts['attempts_per_question']]
    before = np.array([float(e.attempt.facts.correct) for e in sources.episodes])
    final = final_values(s, sampled, lambda e: float(e.response.facts.correct), start=before)
    right = {name: _by_question(values, len(problems)) for name, values in final.items()}
    right = {'attempt': _by_question(before[:, None], len(problems))} | right
    uptake = uptake_by_level(s, sources, sampled['counterfactual'])
    difference = {
        name: by_level(s, problems, right[one], baseline=right[other])
        for name, (one, other) in CONTRASTS.items()
    }
    first = sources.fixed
    return counts | {
        'counterfactuals': len(sources.falsified),
        'fixed_critique': {
            'problem': sources.problems[first].id,
            'text': chat.text(sources.critique(first)),
        },
        'accuracy': {name: by_level(s, problems, values) for name, values in right.items()},
        'difference': difference,
        'uptake': uptake,
        'right_after': right_after(s, sources, final, was_right=before > 0),
        'steps_correct': _steps_correct(s, sources, sampled, problems=problems),
        **_tokens(s, sources, sampled, chat=chat),
        'warning': warning(difference['words']['all'], uptake['all'], counts),
    }


def final_values(
    s: EvaluateSettings,
    sampled: Mapping[str, Sequence[Episode]],
    value: Callable[[Episode], float],
    *,
    start: np.ndarray,
) -> Values:
    """Returns the value of every attempt under every condition and sample.

    Attempts that a condition does not sample keep the value `start` [attempts], or that of the
    condition which `Condition.others` names.
    """
    values = {'attempt': np.repeat(start[:, None], s.uptake.num_samples, axis=1)}
    for name, condition in CONDITIONS.items():
        values[name] = values[condition.others].copy()
        for episode in sampled[name]:
            values[name][episode.facts.chain, episode.facts.sample] = value(episode)
    return {name: values[name] for name in CONDITIONS}


def uptake_by_level(
    s: EvaluateSettings, sources: Sources, refined: Sequence[Episode]
) -> dict[str, list[float] | None]:
    """Returns the share of counterfactual critiques whose false value the refinement uses.

    By level, with its interval over questions; None without counterfactual critiques.
    """
    shape = (len(sources.episodes), s.uptake.num_samples)
    used, count = np.zeros(shape), np.zeros(shape)
    for episode in refined:
        used[episode.facts.chain, episode.facts.sample] = episode.response.facts.uses_value
        count[episode.facts.chain, episode.facts.sample] = 1
    problems = sources.problems[:: _attempts_per_question(sources)]
    return {
        level: _share(s, used, count, questions=len(problems), chosen=chosen)
        for level, chosen in indices_by_level(problems).items()
    }


def right_after(
    s: EvaluateSettings, sources: Sources, final: Values, *, was_right: np.ndarray
) -> dict[str, dict[str, list[float] | None]]:
    """Returns by condition the share of refined attempts that are right afterwards.

    Of wrong and of right attempts apart. `always` refines all attempts, `annotated` those that its
    own critiques do not call correct, the others the due ones; where `counterfactual` and `blanked`
    have no text of their own, they count as `own`.
    """
    due, annotated = np.zeros((2, len(sources.episodes)), bool)
    due[sources.due], annotated[list(sources.annotated)] = True, True
    questions = len(sources.episodes) // _attempts_per_question(sources)
    table = {}
    for name, values in final.items():
        refined = annotated if name == 'annotated' else due | (name == 'always')
        table[name] = {}
        for kind, chosen in (('wrong', refined & ~was_right), ('right', refined & was_right)):
            count = np.broadcast_to(chosen[:, None], values.shape)
            table[name][kind] = _share(s, values * count, count, questions=questions)
    return table


def warning(words: Sequence[float], uptake: Sequence[float] | None, counts: dict) -> str | None:
    """Returns why the words of critiques show no effect; None if their interval is above zero."""
    if None in words:
        return f'own - shuffled is {100 * words[0]:+.1f} points without an interval: {_few(counts)}'
    mean, low, high = (100 * value for value in words)
    if low > 0:
        return None
    head = f'own - shuffled is {mean:+.1f} [{low:.1f}, {high:.1f}] points, not above zero: '
    if uptake is not None and None not in uptake and uptake[2] < READS:
        return head + f'the refiner does not read critiques (uptake {100 * uptake[0]:.1f} %)'
    if counts['due_questions'] < statistics.MIN_QUESTIONS:
        return head + _few(counts)
    if uptake is None:
        return head + 'no critique derives a value, so it is unknown whether the refiner reads them'
    return head + (
        f'the refiner reads (uptake {100 * uptake[0]:.1f} %), but the own critiques are no better '
        "than another question's"
    )


def _few(counts: dict) -> str:
    return f'only {counts["due"]} attempts at {counts["due_questions"]} questions are refined'


def _counts(s: EvaluateSettings, sources: Sources) -> dict:
    n = _attempts_per_question(sources)
    return {
        'questions': len(sources.episodes) // n,
        'attempts_per_question': n,
        'num_samples': s.uptake.num_samples,
        'due': len(sources.due),
        'due_questions': sources.num_due_questions,
    }


def _tokens(
    s: EvaluateSettings,
    sources: Sources,
    sampled: Mapping[str, Sequence[Episode]],
    *,
    chat: Chat,
) -> dict[str, dict[str, float]]:
    """Returns tokens an answer by condition: generated, and processed with the prompts.

    Every condition pays for attempt and critique, because the critique's verdict is its gate.
    """
    count = {
        'tokens_per_answer': lambda e: {t.role: len(t.tokens) for t in e.turns if t.logprobs},
        'processed_per_answer': lambda e: episode_lib.processed_tokens(chat, e),
    }
    table = {}
    for name, tokens in count.items():
        shared = [tokens(e) for e in sources.episodes]
        gate = np.mean([each['attempt'] + each['critique'] for each in shared])
        values = final_values(
            s,
            sampled,
            lambda e, tokens=tokens: float(sum(tokens(e).values())),
            start=np.zeros(len(sources.episodes)),
        )
        table[name] = {arm: float(gate + cost.mean()) for arm, cost in values.items()}
    return table


def _steps_correct(s, sources, sampled, *, problems) -> dict | None:
    """Returns by condition and level the share of answers with every step right (lab only)."""
    before = [e.attempt.facts.steps_correct for e in sources.episodes]
    if None in before:
        return None
    start = np.array(before, float)
    final = final_values(s, sampled, lambda e: float(e.response.facts.steps_correct), start=start)
    return {
        name: by_level(s, problems, _by_question(values, len(problems)))
        for name, values in final.items()
    }


def _share(
    s: EvaluateSettings,
    part: np.ndarray,
    whole: np.ndarray,
    *,
    questions: int,
    chosen: Sequence[int] | None = None,
) -> list[float] | None:
    """Ratio of two values of attempts and samples, with its interval over the chosen questions."""
    above, below = (x.reshape(questions, -1).sum(axis=1) for x in (part, whole))
    places = range(questions) if chosen is None else chosen
    places = [q for q in places if below[q]]
    if not places:
        return None
    return list(
        statistics.bootstrap_ratio(
            above[places],
            below[places],
            num_resamples=s.num_resamples,
            seed=0,
            level=s.confidence,
        )
    )


def _by_question(values: np.ndarray, questions: int) -> list[float]:
    """Mean over the attempts at a question and over samples."""
    return values.reshape(questions, -1).mean(axis=1).tolist()


def _attempts_per_question(sources: Sources) -> int:
    first = sources.problems[0].id
    return sum(problem.id == first for problem in sources.problems)
