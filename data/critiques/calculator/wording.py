"""Writes a review as a critique: sentences that calculation proves, in several wordings."""

import random
from collections.abc import Mapping

from elenchus.data.critiques import grammars
from elenchus.data.critiques.calculator import expressions, sources
from elenchus.data.critiques.calculator.chains import Computation
from elenchus.data.critiques.calculator.expressions import Expression, Fraction
from elenchus.data.critiques.calculator.review import WRONG, Finding, Review

TRUE = ('{left} is {result}.', '{left} = {result}.', 'The result of {left} is {result}.')
ROUNDED = ('{left} is about {result}.', '{left} is {result} when rounded.')
SLIP = (
    '{left} is {exact}, not {result}.',
    '{left} = {exact}, so {result} is wrong.',
    'The result is wrong: {left} is {exact}, not {result}.',
)
CARRIED = (
    'This takes over {old}, which should be {new}; {corrected} is {exact}.',
    '{old} is wrong here, it should be {new}: {corrected} is {exact}, not {result}.',
    'With {new} in place of the wrong {old}, this is {corrected} = {exact}.',
)
CARRIED_OPEN = ('This takes over {old}, which is wrong.', '{old} is wrong, and is used here.')
"""Wordings for a result with many decimals, whose formula would need rounding."""

UNKNOWN = (
    'This could not be checked by calculation.',
    'The calculation here could not be checked.',
)
NOTHING = (
    'No calculation in this step could be checked.',
    'This step has no calculation that could be checked.',
)
ABSENT = (
    '{old} is neither in the question nor a result of an earlier step.',
    'The question does not have {old}, and no earlier step reaches it.',
)
QUOTE = ('The question says "{quote}".', 'It says "{quote}" in the question.')
OPERAND = ('Here {new} is needed, not {old}.', '{old} should be {new}.')
NEEDED = {
    'operand': ('{needed} is {exact}.', 'So it is {needed} = {exact}.'),
    'operation': (
        'These numbers are combined in the wrong way: it should be {needed}, which is {exact}.',
        'The operation is wrong: not {left} but {needed}, which is {exact}.',
    ),
    'missing': (
        '{new} is left out: it should be {needed}, which is {exact}.',
        'This leaves out {new}; {needed} is {exact}.',
    ),
    'extra': (
        '{old} does not belong here: it should be {needed}, which is {exact}.',
        'This should be without {old}: {needed} is {exact}.',
    ),
    'other': (
        'This is not what is needed: it should be {needed}, which is {exact}.',
        'It should be {needed}, which is {exact}, not {left}.',
    ),
}
ANSWER_RIGHT = (
    'The answer is {answer}.',
    '{answer} is the answer.',
    'The answer {answer} is right.',
)
ANSWER_CARRIED = (
    'The answer {answer} follows from the mistake in step {step}.',
    'The mistake in step {step} leads to the answer {answer}.',
)
ANSWER_OTHER = (
    'The steps reach {reached}, but the answer says {answer}.',
    'The last result is {reached}, not {answer}.',
)
ANSWER_WRONG = ('The answer is not {answer}.', '{answer} is not the answer.')
ANSWER_ABSENT = ('There is no answer.', 'No final answer is stated.')


class Writer:
    """Makes the critique of a review: each explanation says what is wrong, or what was checked.

    The wordings are drawn from `rng`.
    """

    def __init__(self, review: Review, *, rng: random.Random):
        """Draws the spacing of formulas once for the whole critique."""
        self.review, self.rng, self.spaced = review, rng, rng.random() < 0.5

    def critique(self, *, full_pass: bool) -> grammars.Critique:
        """Returns the critique; without `full_pass` it stops at the first wrong step."""
        steps = []
        # If there is no answer, the last line is a step, perhaps one that was cut off.
        lines = self.review.lines if self.review.answer is None else self.review.lines[:-1]
        for place, line in enumerate(lines):
            if not line.strip():
                continue
            correct = self.review.verdict(place)
            sentence = ' '.join(line.split())
            steps.append(grammars.StepVerdict(sentence, correct, self._explain(place)))
            if correct is False and not full_pass:
                break
        right = self.review.answer_is_right
        return grammars.Critique(tuple(steps), right, self._final())

    def _pick(self, wordings: tuple[str, ...], fields: Mapping[str, object]) -> str:
        return self.rng.choice(wordings).format(**fields)

    def _formula(self, expression: Expression) -> str:
        texts = [leaf.text for leaf in expression.leaves]
        text = expressions.write(expression.node, texts)
        if not self.spaced:
            return text
        return expressions.write(expression.node, texts, space=' ')

    def _explain(self, line: int) -> str:
        """Explains what is wrong in a line, or what was checked if nothing is."""
        review = self.review
        items = [i for i, item in enumerate(review.chain) if item.line == line]
        for place in items:
            if review.findings[place] in WRONG:
                return self._explain_wrong(place)
        known = [i for i in items if review.findings[i] is not Finding.UNKNOWN]
        if not known:
            return self._explain_nothing(has_calculation=bool(items))
        return ' '.join(self._explain_true(review.chain[i]) for i in known)

    def _explain_nothing(self, *, has_calculation: bool) -> str:
        return self._pick(UNKNOWN if has_calculation else NOTHING, {})

    def _explain_true(self, item: Computation) -> str:
        wordings = TRUE if states_exactly(item) else ROUNDED
        shown = item.equation.right.text
        return self._pick(wordings, {'left': self._formula(item.computed), 'result': shown})

    def _explain_wrong(self, place: int) -> str:
        review, item = self.review, self.review.chain[place]
        finding = review.findings[place]
        fields = {
            'left': self._formula(item.computed),
            'result': item.equation.right.text,
            'exact': show(review.corrected[place], item.equation.right),
        }
        if finding is Finding.SLIP:
            fields['exact'] = show(item.equation.exact, item.equation.right)
            return self._pick(SLIP, fields)
        if finding is Finding.CARRIED:
            return self._explain_carried(item, fields)
        return self._explain_repair(fields)

    def _explain_carried(self, item: Computation, fields: dict) -> str:
        """Explains which wrong result is used, and what follows from the right one."""
        changed, pairs = self._with_corrections(item)
        old, new = pairs[0]
        fields |= {'old': old, 'new': new, 'corrected': self._formula(changed)}
        if any('about' in text for _, text in pairs):
            return self._pick(CARRIED_OPEN, fields)
        return self._pick(CARRIED if self.review.is_solved else CARRIED[-1:], fields)

    def _with_corrections(self, item: Computation) -> tuple[Expression, list[tuple[str, str]]]:
        """Returns the computation on corrected results, and (wrong, corrected) for each."""
        changed, pairs = item.computed, []
        for index, source in enumerate(item.sources):
            new = None if source is None else self.review.corrected[source]
            if new is not None and new != item.computed.leaves[index].value:
                old = item.computed.leaves[index]
                leaf = old._replace(value=new, text=self._show_corrected(new))
                changed = changed.with_leaf(index, leaf)
                pairs.append((old.text, leaf.text))
        return changed, pairs

    def _show_corrected(self, value: Fraction) -> str:
        """Writes a result that replaces a wrong one among the operands of a computation."""
        return show(value)

    def _explain_repair(self, fields: dict) -> str:
        review, repair = self.review, self.review.repair
        needed = self._formula(repair.needed)
        fields |= {'needed': needed, 'exact': show(repair.result)}
        fields |= {'old': show(repair.old), 'new': show(repair.new)}
        sentences = []
        if repair.kind == 'operand':
            sentences.append(self._explain_operand(fields))
        quote = sources.quote(review.problem.question, repair.new) if repair.new else None
        if quote:
            sentences.append(self._pick(QUOTE, {'quote': quote}))
        sentences.append(self._pick(NEEDED[repair.kind], fields))
        return ' '.join(sentences)

    def _explain_operand(self, fields: dict) -> str:
        """Explains that a number has no source, or which number should replace it."""
        review, repair = self.review, self.review.repair
        line = review.chain[repair.place].line
        earlier = set().union(*(sources.numbers_of(text) for text in review.lines[:line]), set())
        earlier |= {item.equation.result for item in review.chain[: repair.place]}
        absent = repair.old not in review.question_numbers | earlier
        return self._pick(ABSENT if absent else OPERAND, fields)

    def _final(self) -> str:
        review = self.review
        fields = {'answer': review.answer}
        if review.answer is None:
            return self._pick(ANSWER_ABSENT, fields)
        if review.answer_is_right:
            return self._pick(ANSWER_RIGHT, fields)
        last = review.chain[-1] if review.chain else None
        if last is None:
            return self._pick(ANSWER_WRONG, fields)
        stated = last.equation.result
        if not sources.numbers_of(review.answer) & {stated}:
            fields['reached'] = last.equation.right.text
            wrong = review.first_error is not None
            return self._pick(ANSWER_WRONG if wrong else ANSWER_OTHER, fields)
        if last.line == len(review.lines) - 1 and review.verdict(last.line) is False:
            return self._explain(last.line)
        mistakes = self._mistakes()
        if review.is_solved and len(mistakes) == 1:
            at = self.review.chain[mistakes[0]].line
            fields['step'] = sum(bool(line.strip()) for line in review.lines[: at + 1])
            return self._pick(ANSWER_CARRIED, fields)
        return self._pick(ANSWER_WRONG, fields)

    def _mistakes(self) -> list[int]:
        """Returns the indices of computations that are false or need to be replaced."""
        wrong = (Finding.SLIP, Finding.REPLACED)
        return [i for i, finding in enumerate(self.review.findings) if finding in wrong]


def states_exactly(item: Computation) -> bool:
    """Whether a true result is stated exactly, not rounded; percent signs may be written freely."""
    leaves = (item.equation.right.leaves[0], *item.computed.leaves)
    return item.computed.value == item.equation.result or any(leaf.percent for leaf in leaves)


def show(value: Fraction | None, like: Expression | None = None) -> str:
    """Writes a value: exactly if it has few decimals, else rounded, as `about 3.33`.

    Percent sign, thousands separators and decimals are those of `like`, the number it replaces.
    """
    if value is None:
        return ''
    leaf = like.leaves[0] if like is not None and like.is_number else None
    percent = leaf is not None and leaf.percent
    value = value * 100 if percent else value
    commas = ',' if leaf is not None and ',' in leaf.text else ''
    for decimals in range(7):
        if (value * 10**decimals).denominator == 1:
            break
    else:
        rounded = round(value, 2) or round(value, 6)
        return f'about {float(rounded):{commas}.6f}'.rstrip('0').rstrip('.') + '%' * percent
    money = leaf is not None and leaf.decimals == 2 and decimals == 1
    whole = value * 10 ** (decimals + money)
    digits = f'{abs(int(whole)):0{decimals + money + 1}d}'
    cut = len(digits) - decimals - money
    text = f'{int(digits[:cut]):{commas}}' + ('.' + digits[cut:] if decimals else '')
    return ('-' if value < 0 else '') + text + '%' * percent
