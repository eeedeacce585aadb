"""Writes a review as a critique that works each step out before it judges it.

The sentence about a right step and the one about a wrong step that can be put right have the same
form: what the step should be, one operation at a time. So a critic that learns to write them has
decided nothing before it has calculated; its verdict compares the result with the step.
"""

from elenchus.data.critiques.calculator import expressions
from elenchus.data.critiques.calculator.expressions import Expression, Fraction, Node
from elenchus.data.critiques.calculator.review import WRONG, Finding
from elenchus.data.critiques.calculator.wording import Writer, show, states_exactly

SHOULD_BE = ('It should be {work}.', 'This should be {work}.')
STATED = ('{work}.', 'Here {work}.')
"""Wordings for arithmetic that may not be what is needed."""


class WorkedWriter(Writer):
    """Makes the critique of a review whose explanations work the steps out."""

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
        """Says what a computation should be; only what it is, if nothing shows that it is needed.

        Results are written like the step's: a right one must not look different from a wrong one.
        """
        review, item = self.review, self.review.chain[place]
        finding, right = review.findings[place], item.equation.right
        if finding is Finding.REPLACED:
            like = None if right.leaves[0].percent else right
            return self._say(review.repair.needed, review.repair.result, like=like)
        if finding in WRONG:
            changed, _ = self._with_corrections(item)
            is_same = changed == item.computed
            value = item.equation.exact if is_same else review.corrected[place]
            if value is not None:
                wordings = SHOULD_BE if review.is_solved else STATED
                return self._say(changed, value, like=right, wordings=wordings)
            return self._say(item.computed, item.equation.exact, like=right, wordings=STATED)
        wordings = SHOULD_BE if finding is Finding.RIGHT else STATED
        if states_exactly(item):
            return self._say(item.computed, item.equation.exact, like=right, wordings=wordings)
        work = f'{self._formula(item.computed)}, which is about {right.text}'
        return self._pick(wordings, {'work': work})

    def _say(
        self,
        computed: Expression,
        value: Fraction,
        *,
        like: Expression | None,
        wordings: tuple[str, ...] = SHOULD_BE,
    ) -> str:
        """Writes a computation, its operations and its value, which is written like `like`."""
        result = show(value, like)
        if 'about' in result:
            work = f', which is {result}'
        else:
            operations = self._operations(computed) if computed.value == value else []
            work = f' = {result}'
            if len(operations) > 1:
                last = operations[-1].partition(' = ')[0]
                work = ': ' + '; '.join([*operations[:-1], f'{last} = {result}'])
        return self._pick(wordings, {'work': f'{self._formula(computed)}{work}'})

    def _show_corrected(self, value: Fraction) -> str:
        """Writes a corrected operand exactly, if need be as a fraction."""
        text = show(value)
        return f'{value.numerator}/{value.denominator}' if 'about' in text else text

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
