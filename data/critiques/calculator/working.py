"""Writes a review as a critique that works each step out before it judges it.

The sentence about a right step and the one about a wrong step have the same form: what the step
should be, one operation at a time. So a critic that learns to write them has not decided anything
before it has calculated; its verdict compares the result with the step.
"""

from elenchus.data.critiques.calculator import expressions
from elenchus.data.critiques.calculator.expressions import Expression, Fraction, Node
from elenchus.data.critiques.calculator.review import Finding
from elenchus.data.critiques.calculator.wording import (
    CARRIED_OPEN,
    WRONG,
    Writer,
    show,
    states_exactly,
)

NEEDED = ('It should be {work}.', 'This should be {work}.')
STATED = ('{work}.', 'Here {work}.')
"""Wordings for arithmetic that may not be what is needed."""


class WorkedWriter(Writer):
    """Writes the critique of a review in the grammar `worked`."""

    def _explain(self, line: int) -> str:
        """Works out the calculations of a line, up to the first that is wrong."""
        items = [i for i, item in enumerate(self.review.chain) if item.line == line]
        sentences = []
        for place in items:
            if self.review.findings[place] is not Finding.UNKNOWN:
                sentences.append(self._work_out(place))
            if self.review.findings[place] in WRONG:
                break
        return ' '.join(sentences) or self._explain_nothing(has_calculation=bool(items))

    def _work_out(self, place: int) -> str:
        review, item = self.review, self.review.chain[place]
        finding, right = review.findings[place], item.equation.right
        if finding is Finding.REPLACED:
            return self._say(review.repair.needed, show(review.repair.result), NEEDED)
        wordings = NEEDED if finding is Finding.RIGHT or review.is_solved else STATED
        if finding is Finding.SLIP:
            return self._say(item.computed, show(item.equation.exact, right), wordings)
        if finding is Finding.CARRIED:
            changed, pairs = self._with_corrections(item)
            if any('about' in new for _, new in pairs):
                return self._pick(CARRIED_OPEN, {'old': pairs[0][0]})
            return self._say(changed, show(review.corrected[place], right), wordings)
        result = right.text if states_exactly(item) else f'about {right.text}'
        return self._say(item.computed, result, NEEDED if finding is Finding.RIGHT else STATED)

    def _say(self, computed: Expression, result: str, wordings: tuple[str, ...]) -> str:
        equals = f', which is {result}' if 'about' in result else f' = {result}'
        operations = self._operations(computed)
        if len(operations) > 1 and operations[-1].endswith(equals):
            equals = ': ' + '; '.join(operations)
        return self._pick(wordings, {'work': f'{self._formula(computed)}{equals}'})

    def _operations(self, computed: Expression) -> list[str]:
        """Returns the operations in the order of calculation: `2+5 = 7`, then `7*3 = 21`.

        Empty if a result on the way cannot be written exactly, or a sign may have two readings.
        """
        written: list[str] = []

        def work_out(node: Node) -> tuple[str, Fraction] | None:
            """Returns the value of a tree as text and exactly, after its operations."""
            if isinstance(node, int):
                leaf = computed.leaves[node]
                return None if leaf.percent else (leaf.text, leaf.value)
            parts = [work_out(part) for part in node[1:]]
            if node[0] == 'neg' or None in parts:
                return None
            value = expressions.evaluate((node[0], 0, 1), [part[1] for part in parts])
            text = show(value)
            if value is None or value < 0 or 'about' in text:
                return None
            space = ' ' if self.spaced else ''
            formula = expressions.write((node[0], 0, 1), [part[0] for part in parts], space=space)
            written.append(f'{formula} = {text}')
            return text, value

        return written if work_out(computed.node) else []
