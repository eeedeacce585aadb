"""LR2Bench: puzzles with constraints, right only as a whole.

A puzzle's answer is a list of parts. It counts if all parts are right; the share of right parts,
and of responses that are complete, tell how near a model comes.

Formula: exact match; partial match = right parts / parts; completion = responses with all parts.
Source: the essence of "LR2Bench" (850 samples, six kinds of constraint problems, exact match).
Differs: its data are the user's (data.source='jsonl'); parts are separated by commas, semicolons or
line breaks, so that a wrong list of numbers such as 100,200 is read as one number; figures are over
all puzzles, not by kind.
"""

import re

from elenchus.configs import method


def parts_of(answer):
    """The parts of an answer, without white space, in lower case."""
    return [part.strip().lower() for part in re.split(r'[,;\n]', answer or '') if part.strip()]


def puzzles(groups, read):
    """Exact match, partial match and completion of all attempts."""
    exact, partial, complete, count = 0, 0.0, 0, 0
    for group in groups:
        wanted = parts_of(group.problem.answer)
        for episode in group:
            parts = parts_of(episode.attempt.facts.answer)
            is_exact = bool(episode.attempt.facts.correct)
            right = sum(a == b for a, b in zip(parts, wanted, strict=False))
            exact += is_exact
            partial += 1.0 if is_exact else right / max(1, len(wanted))
            complete += is_exact or len(parts) == len(wanted)
            count += 1
    return {
        'exact match': exact / count,
        'partial match': partial / count,
        'complete': complete / count,
    }


CHANGES = {'evaluate.measures': ('elenchus.configs.evaluations.lr2_bench:puzzles',)}
get_config = method.of(CHANGES, stages=method.EVALUATE)
