"""What annotators say of any attempt, and what they know."""

import hypothesis
import pytest
from hypothesis import strategies as st

from data import annotate, critiques, lab, mistakes, problems, records, tokenizer

SOLUTION = 'She sold 48/2 = 24 clips in May.\nThat is 48+24 = 72 clips altogether.\n#### 72'
PROBLEM = records.Problem('p', 'How many clips?', '72', SOLUTION, 2, 'gsm8k')
LAB_PROBLEM = lab.problem(seed=0, split='train', index=4)
RNGS = st.randoms(use_true_random=False)


def parsed(attempt, problem=PROBLEM):
    return critiques.RELEASED.parse(annotate.annotate(problem, attempt))


def test_the_reference_solution_passes_step_by_step():
    critique = parsed(SOLUTION)
    assert [step.correct for step in critique.steps] == [True, True]
    assert critique.final_correct is True


def test_the_critique_stops_at_the_first_step_that_leaves_the_reference():
    critique = parsed('She sold 48/2 = 25 clips.\nSo 48+25 = 73.\n#### 73')
    assert [step.correct for step in critique.steps] == [False]
    assert critique.final_correct is False


@pytest.mark.parametrize('last', ['#### 71', '72', '', '####'])
def test_a_wrong_or_missing_answer_is_wrong(last):
    critique = parsed(f'She sold 48/2 = 24 clips in May.\n{last}')
    assert critiques.first_error(critique) is None
    assert critique.final_correct is False


def test_commas_do_not_hide_a_number():
    problem = records.Problem('r', '?', '1200', 'It is 600*2 = 1200.\n#### 1200', 1, 'gsm8k')
    assert parsed('It is 600*2 = 1,200.\n#### 1,200', problem).final_correct is True


def test_a_step_without_a_number_contradicts_nothing():
    critique = parsed(f'Let x be what she sold.\n{SOLUTION}')
    assert [step.correct for step in critique.steps] == [True] * 3 and critique.final_correct


@hypothesis.given(st.text())
def test_any_attempt_gets_a_critique_with_a_final_verdict(attempt):
    assert parsed(attempt).final_correct in (True, False)


@hypothesis.given(RNGS)
def test_on_the_lab_the_annotator_is_the_judge(rng):
    attempt = mistakes.corrupt(LAB_PROBLEM, rng=rng)
    judgement = lab.judge(LAB_PROBLEM.question, attempt)
    assert annotate.annotate(LAB_PROBLEM, attempt) == judgement.critique


def test_real_solutions_pass_and_their_verdicts_can_be_found(shared_data):
    path = shared_data / 'gsm8k' / 'train.jsonl'
    with path.open(encoding='utf-8') as lines:
        read = [
            problems.gsm8k_problem(line, id=str(i), annotations=False)
            for i, line in zip(range(50), lines, strict=False)
        ]
    told = [annotate.annotate(p, p.solution) for p in read]
    model = tokenizer.train_tokenizer(told, vocab_size=600, model_type='bpe')
    tok = tokenizer.SentencePieceTokenizer.from_bytes(model)
    passed = 0
    for text in told:
        critique = critiques.RELEASED.parse(text)
        steps, final = critiques.verdict_positions(
            tok.encode(text), grammar=critiques.RELEASED, tokenizer=tok
        )
        assert len(steps) == len(critique.steps) and None not in (*steps, final)
        passed += critique.final_correct
    assert passed == len(told)
