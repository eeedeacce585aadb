"""Reviews an attempt by calculation: verdicts on its steps, and corrections of what is wrong.

Verdicts that calculation cannot give are None. For a wrong attempt in which no mistake is located,
`review` returns a reason instead.
"""

import dataclasses
import enum
from collections.abc import Mapping, Sequence, Set

from elenchus.data.critiques.calculator import chains, plain_reading, repairs, sources
from elenchus.data.critiques.calculator.chains import Computation
from elenchus.data.critiques.calculator.expressions import Fraction
from elenchus.data.critiques.calculator.repairs import Repair
from elenchus.data.grading import answers
from elenchus.data.records import Problem

NOT_LOCATED = 'not_located'
NO_SOLUTION = 'no_reference_number'
CONTRADICTION = 'contradicts_location'


class Finding(enum.Enum):
    """What calculation shows about a computation."""

    RIGHT = 'right'  # in the reference solution too, or used to reach the right answer
    TRUE = 'true'  # the arithmetic is right, but it may not be needed
    UNKNOWN = 'unknown'
    SLIP = 'slip'  # the arithmetic is false
    REPLACED = 'replaced'  # another computation is needed: `Review.repair`
    CARRIED = 'carried'  # it uses a wrong result


WRONG = frozenset({Finding.SLIP, Finding.REPLACED, Finding.CARRIED})
"""Findings that make a line wrong."""


@dataclasses.dataclass(frozen=True)
class Review:
    """The result of a review: computations with findings, and the answer.

    `corrected` are the results after all corrections; those of a SLIP are exact.
    """

    problem: Problem
    lines: tuple[str, ...]  # of the attempt, the answer's last
    chain: tuple[Computation, ...]
    findings: tuple[Finding, ...]
    corrected: tuple[Fraction | None, ...]
    repair: Repair | None
    answer: str | None
    answer_is_right: bool
    is_solved: bool  # the answer is right, or the corrected results lead to the right one
    question_numbers: Set[Fraction]

    def verdict(self, line: int) -> bool | None:
        """Returns whether a line is right; None if it is not known."""
        findings = [
            f for f, item in zip(self.findings, self.chain, strict=True) if item.line == line
        ]
        if WRONG.intersection(findings):
            return False
        return True if findings and set(findings) == {Finding.RIGHT} else None

    @property
    def first_error(self) -> int | None:
        """The first line that is wrong; None without one."""
        return next((i for i in range(len(self.lines)) if self.verdict(i) is False), None)


def review(problem: Problem, attempt: str, *, location: int | None = None) -> Review | str:
    """Reviews an attempt; returns the reason if it is wrong and no mistake is located.

    `location` is a line before which the attempt is known to be right.
    """
    lines = tuple(attempt.split('\n'))
    question = sources.numbers_of(problem.question)
    chain = chains.read(lines, exact_values=question)
    answer = answers.extract_answer(attempt)
    right = answer is not None and answers.equivalent(answer, problem.answer)
    slips = {
        place: item.equation.exact
        for place, item in enumerate(chain)
        if item.equation.holds is False
    }
    reference = chains.read(problem.solution.split('\n')[:-1]) if problem.solution else []
    repair = None
    wanted = answers.parse_number(problem.answer)
    if not right and wanted is not None and chain:
        corrected = chains.recompute(chain, slips)
        if corrected[-1] != wanted:
            tried = repairs.Attempt(chain, question, wanted)
            repair = repairs.find(tried, reference, slips=slips)
    replaced = {repair.place: repair.result} if repair else {}
    changed = slips | replaced
    corrected = chains.recompute(chain, slips, replaced)
    solves = right or (bool(chain) and wanted is not None and corrected[-1] == wanted)
    findings = _findings(
        chain, changed, reference=reference, repair=repair, corrected=corrected, solves=solves,
        known=question, location=location,
    )  # fmt: skip
    result = Review(
        problem,
        lines,
        tuple(chain),
        findings,
        tuple(corrected),
        repair,
        answer,
        right,
        solves,
        question,
    )
    return _reason(result, wanted=wanted, location=location) or result


def _reason(result: Review, *, wanted: Fraction | None, location: int | None) -> str | None:
    """Returns why an attempt gets no critique."""
    first = result.first_error
    if location is not None and first is not None and first < location:
        return CONTRADICTION
    if first is not None and any(_is_open(result, i) for i in range(location or 0, first)):
        return NOT_LOCATED  # the first mistake may be there
    if result.answer_is_right or first is not None:
        return None
    reached = bool(result.chain) and result.chain[-1].equation.result == wanted
    if wanted is not None and reached and location in (None, len(result.lines) - 1):
        return None  # the steps reach the answer, and the last line says another one
    return NOT_LOCATED if result.problem.solution else NO_SOLUTION


def _is_open(result: Review, line: int) -> bool:
    """Whether a line without a verdict has an equation that is false if taken literally."""
    if result.verdict(line) is not None:
        return False
    items = [item for item in result.chain if item.line == line]
    return any(item.equation.may_be_false for item in items) or (
        plain_reading.states_false(result.lines[line])
    )


def _findings(
    chain: Sequence[Computation],
    changed: Mapping[int, Fraction],
    *,
    reference: Sequence[Computation],
    repair: Repair | None,
    corrected: Sequence[Fraction | None],
    solves: bool,
    known: Set[Fraction],
    location: int | None,
) -> tuple[Finding, ...]:
    """Returns the finding of each computation; `solves`: the corrections reach the answer."""
    keys = {item.computed.key() for item in reference}
    values = {item.equation.result for item in reference}
    operands = {tuple(sorted(item.computed.values)) for item in reference}
    used = _used(chain) if solves else set()
    carried = _carried(chain, changed, repair=repair, values=values)
    findings = []
    for place, item in enumerate(chain):
        earlier = {other.equation.result for other in chain[:place]}
        sourced = set(item.computed.values) <= earlier | known | sources.CONSTANTS
        # Other signs on the reference's operands, `2*2` for `2+2`, are right only by accident.
        accident = tuple(sorted(item.computed.values)) in operands
        trusted = (place in used and not accident) or (
            location is not None and item.line < location
        )
        if repair and place == repair.place:
            findings.append(Finding.REPLACED)
        elif item.equation.holds is False:
            findings.append(Finding.SLIP)
        elif place in carried and corrected[place] not in (None, item.equation.result):
            findings.append(Finding.CARRIED)
        elif item.equation.holds is None:
            findings.append(Finding.UNKNOWN)
        elif sourced and (item.computed.key() in keys or trusted):
            findings.append(Finding.RIGHT)
        else:
            findings.append(Finding.TRUE)
    return tuple(findings)


def _used(chain: Sequence[Computation]) -> set[int]:
    """Returns the indices of the computations that the last one depends on, itself included."""
    return chains.leads_to(chain, chain[-1].equation.result) if chain else set()


def _carried(
    chain: Sequence[Computation],
    changed: Mapping[int, Fraction],
    *,
    repair: Repair | None,
    values: Set[Fraction],
) -> set[int]:
    """Returns the indices of the computations that use a wrong result.

    The result of a false equation is not wrong if the reference has it too: `8*3 = 240` for
    `80*3 = 240` is only a slip of the pen.
    """
    return {
        later
        for place in changed
        if (repair and place == repair.place) or chain[place].equation.result not in values
        for later in chains.dependents(chain, place)
    }
