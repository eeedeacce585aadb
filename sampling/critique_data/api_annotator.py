"""The annotator `api`: critiques by a model behind an OpenAI-compatible server.

What it is shown follows AutoMathCritique (arXiv 2411.16579): question, reference solution and
attempt; of RG2 also the line before which all is right, of RG3 the line and kind of the mistake.
The words are ours.
"""

import json
import pathlib
from collections.abc import Sequence

from elenchus.data.critiques import grammars
from elenchus.data.critiques.oracle import Annotator, ConstructedAttempt, NoCritique
from elenchus.data.grading import answers
from elenchus.sampling.critique_data.api_requests import Answer, Client
from elenchus.sampling.critique_data.api_settings import ApiSettings

INSTRUCTION = """\
You check solutions of mathematical problems. Each line of the solution is a step. Go through the \
steps in order; repeat each one, say whether it is correct, and explain why. Stop at the first \
wrong step: say what is wrong in it and what it should be. Then say whether the final answer is \
correct.

You are also shown a reference solution. Use it to be sure, but write for a reader who has not \
seen it, and do not mention it. Another way to the right answer is correct, too.

Write in exactly this form, in plain text:

Step sentence: [the step, in one line]
Correctness of the step: [Correct or Wrong]
Explanation: [your reason]

Correctness of the final answer: [Correct or Wrong]
Explanation: [your reason]"""


def messages_of(item: ConstructedAttempt) -> list[dict[str, str]]:
    """Returns the request for the critique of an attempt."""
    problem = item.problem
    parts = [
        f'Problem:\n{problem.question}',
        f'Reference solution:\n{problem.solution}' if problem.solution else '',
        f'Reference answer: {problem.answer}',
        f'Solution to check:\n{item.attempt}',
        _hint(item),
    ]
    return [
        {'role': 'system', 'content': INSTRUCTION},
        {'role': 'user', 'content': '\n\n'.join(part for part in parts if part)},
    ]


def _hint(item: ConstructedAttempt) -> str:
    """Says what the construction of an attempt makes known; steps are lines that have text."""
    if item.location is None:
        return ''
    lines = item.attempt.split('\n')
    step = sum(bool(line.strip()) for line in lines[: item.location]) + 1
    if item.construction == 'RG3':
        return f'Step {step} has a mistake of this kind: {item.kind}. The steps before are correct.'
    return f'The steps before step {step} are correct.' if step > 1 else ''


def api_annotator(settings: ApiSettings, folder: pathlib.Path) -> Annotator:
    """Returns an annotator that asks a server; `folder` has answers that are paid for.

    Raises ValueError without a key. The annotator raises api_requests.ApiError if the server
    cannot be used; a later call with the same folder continues.
    """
    client = Client(settings, folder)

    def annotate_by_api(items: Sequence[ConstructedAttempt]) -> list[str | NoCritique]:
        """Returns the critiques' texts, or why there is none; nobody pays for empty attempts."""
        shown = [item for item in items if item.attempt.strip()]
        replies = iter(client.ask([messages_of(item) for item in shown]))
        usage = json.dumps(client.usage(), indent=1)
        (client.folder / 'usage.txt').write_text(f'{usage}\n', encoding='utf-8')
        empty = NoCritique('empty_attempt')
        return [_critique(i, next(replies)) if i.attempt.strip() else empty for i in items]

    return annotate_by_api


def _critique(item: ConstructedAttempt, reply: Answer) -> str | NoCritique:
    """Returns a reply as a critique if it is whole and contradicts nothing that is known."""
    if reply.finish_reason == 'length':
        return NoCritique('cut_off')
    if reply.text is None:
        return NoCritique('refused_by_server')
    text = reply.text.strip()
    critique = grammars.RELEASED.parse(text)
    if critique.final_correct is None:
        return NoCritique('no_verdict')
    answer = answers.extract_answer(item.attempt)
    right = answer is not None and answers.compare(answer, item.problem.answer)
    if right is not None and critique.final_correct != right:
        return NoCritique('contradicts_answer')
    first = grammars.first_error(critique)
    lines = [i for i, line in enumerate(item.attempt.split('\n')) if line.strip()]
    place = None if first is None else lines[min(first, len(lines) - 1)]
    if item.location is not None and place is not None and place < item.location:
        return NoCritique('contradicts_location')
    return text
