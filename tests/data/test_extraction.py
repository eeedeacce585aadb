import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data.grading import extraction, references
from elenchus.data.grading.extraction import MARKERS, extract_answer

FORMS = {
    'boxed': r'so \boxed{73}.',
    'bare_box': r'so $x=\boxed 73$.',
    'fbox': r'so $x=\fbox{73}$.',
    'hashes': '#### 73',
    'answer_tag': '<answer>73</answer>',
    'final_answer': 'Final Answer: 73',
    'answer': 'Answer: 73',
    'the_answer_is': 'The answer is 73.',
    'display': 'So we have\n$$73$$',
    'bold': 'So we have\n\n**73**',
}
REMARKS = [
    'So the answer is correct.',
    'I hope the answer is right.',
    'The answer is positive, as two factors are negative.',
    'The answer is not 41.',
]


@pytest.mark.parametrize('remark', REMARKS)
@pytest.mark.parametrize('name', [name for name in FORMS if name not in ('display', 'bold')])
def test_prose_after_an_answer_does_not_replace_it(name, remark):
    assert extract_answer(f'{FORMS[name]}\n\n{remark}') == '73'


@pytest.mark.parametrize(
    'text, answer',
    [
        (r'\boxed{42}. The answer is 41.', '42'),
        ('#### 42\nThe answer is 41.', '42'),
        ('The answer is 41. The answer is 42.', '42'),
        ('The answer is 42. I think the answer is right.', '42'),
        ('The answer is:\n42', '42'),
        ('The final answer is:\n\n$$42$$', '42'),
        ('The final answer is:\n\\[42\\]', '42'),
        ('The final answer is:\n\n**42**', '42'),
        ('The answer is $$\n42\n$$', '42'),
        (r'so $x=\boxed2$.', '2'),
        (r'\boxed\frac{1}{2}.', r'\frac{1}{2}'),
        ('Final Answer: **73**', '73'),
        ('Final Answer: **73**.', '73'),
        ('**Final Answer**\n\n73', '73'),
        ('**Final Answer:** 73', '73'),
        ('### Final Answer\n\n73', '73'),
        ('Final Answer: The final answer is $73$. I hope it is correct.', '$73$'),
        ('Answer: $73$', '$73$'),
        ('**Answer:** 13', '13'),
        ('The correct answer is 73', '73'),
        ('The answer to the question is 73.', '73'),
        ('The answer would be 73', '73'),
        ('Our final answer is therefore 73.', '73'),
        ('The answer is 73, because 70 + 3 is 73.', '73'),
        ('answer is 73', '73'),
        ('Final Answer is 73', '73'),
        ('## Answer\n73', '73'),
        ('**Answer**\n\n73', '73'),
        ('The wrong answer is 41.', None),
        ('### 73', '73'),
        ('####\n73', '73'),
        ('<answer>\\boxed{7}</answer>', '7'),
        ('<answer> The answer is 7 </answer>', '7'),
        ('#### Step 2: Solve\n x = 5\n\nFinal Answer: 5', '5'),
        ('#### 1. Add\n3 + 4 = 7\n\nThe answer is 7.', '7'),
        ('Put it into \\boxed form. The answer is 3.', '3'),
        ('The answer is Mrs. Hilt.', 'Mrs. Hilt'),
        ('The answer is east.', 'east'),
        ('The answer is $5! = 120$.', '$5! = 120$'),
        ('The answer is 5! = 120.', '5! = 120'),
        ('The answer is 5! Great.', '5'),
        (r'The answer is $\binom{5}{2} \cdot 3! = 60$.', r'$\binom{5}{2} \cdot 3! = 60$'),
        (r'The answer is \( 4! + 1 = 25 \). So it is.', r'\( 4! + 1 = 25 \)'),
        (r'The answer is $\text{Mr. Hilt and St. Ives}$. Yes.', r'$\text{Mr. Hilt and St. Ives}$'),
        (r'The answer is \text{No. 5 of them}. Yes.', r'\text{No. 5 of them}'),
        ('The answer is 1 + 2 + ... + 10 = 55.', '1 + 2 + ... + 10 = 55'),
        ('The answer is $5. So he has $3 more.', '$5'),
        ('The answer is $5. That is 5 US$.', '$5'),
        ('The answer is 5. 3 are red.', '5'),
        ('The answer to the question of how many apples are left is 7.', '7'),
        ('The answer for all who are here is **7**. There are 9.', '7'),
        ('The answer to the question is 7 and there are 3 left.', '7 and there are 3 left'),
        ('The answer of the question is east. It is 3 miles.', 'east'),
        ('#### 5\n\n#### Explanation\nWe add.', '5'),
        ('\\boxed{5}\n\n#### Explanation\nWe add.', '5'),
        ('The answer is 5.\n\n#### Explanation\nWe add.', '5'),
        ('#### Check of the sum\nWe add.\n\n**5**', '5'),
        ('#### Solution\nWe add.\n\n#### 5', '5'),
        ('#### Evelyn\nShe is oldest.', 'Evelyn'),
        ('The answer is 3:30 p.m.', '3:30 p.m'),
        ('#### 9**9**9', '9**9**9'),
        ('### Step 3', None),
        ('A line in **bold**', None),
        ('**Done.**', None),
        ('<answer>7', None),
        ('The answer is', None),
        (r'\boxed{}', None),
        (r'$\boxed{5}$ and $\boxed{6}$', '5, 6'),
        (r'\boxed{5} or \boxed{6}.', '5, 6'),
        (r'\boxed{5}, \boxed{6}, and \boxed{7}', '5, 6, 7'),
        (r'\boxed{5}, \boxed{5}', '5'),
        (r'First \boxed{5}. Then \boxed{6}', '6'),
        (r'\boxed{5} and \boxed{}', None),
        ('The answer is thus 18 and not 20.', '18'),
        ('The answer is 18, not 20.', '18'),
        ('The correct option is C', 'C'),
        ('Hence, the correct choice is (C).', '(C)'),
        ('Answer:\n- 18', '18'),
        ('Answer:\n-18', '-18'),
        ('Answer: - 18', '- 18'),
        ('<s>Answer: 5', '5'),
        ('<|im_start|>assistant\nAnswer: 5<|im_end|>', '5'),
    ],
)
def test_forms_of_answers(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    'token',
    [
        '<|im_end|>',
        '</s>',
        '<|endoftext|>',
        '<|eot_id|>',
        '<eos>',
        '<s>',
        '<|user|>',
        '<|im_start|>',
        '<|END_OF_TURN_TOKEN|>',
    ],
)
@pytest.mark.parametrize('name', FORMS)
def test_an_end_token_as_text_ends_the_response(name, token):
    assert extract_answer(f'{FORMS[name]}{token}') == '73'
    assert extract_answer(f'{FORMS[name]}{token}\nuser: the answer is 5 \\boxed{{6}}') == '73'


@pytest.mark.parametrize('name', FORMS)
def test_a_marker_that_is_not_enabled_is_no_marker(name):
    assert extract_answer(FORMS[name], [name]) == '73'
    others = [marker for marker in MARKERS if marker != name]
    assert extract_answer(FORMS[name], others) is None


def test_without_next_line_an_answer_must_stand_on_its_line():
    markers = [marker for marker in MARKERS if marker != 'next_line']
    assert extract_answer('The answer is:\n42', markers) is None
    assert extract_answer('####\n42', markers) is None
    assert extract_answer('The answer is: 42', markers) == '42'


@given(st.text(max_size=200))
def test_any_text_has_an_answer_or_none(text):
    answer = extract_answer(text)
    assert answer is None or answer == answer.strip() and answer


@given(st.integers(-(10**9), 10**9), st.sampled_from(list(FORMS)), st.sampled_from(REMARKS))
def test_any_number_is_extracted_whatever_remark_follows(number, name, remark):
    text = FORMS[name].replace('73', str(number))
    assert extract_answer(text) == str(number)
    if name not in ('display', 'bold'):
        assert extract_answer(f'{text}\n{remark}') == str(number)


@pytest.mark.parametrize('size', [1, 2])
def test_long_texts_take_no_longer_than_their_length(size):
    for piece in (
        r'\boxed{',
        '#### ',
        'the answer is ',
        '**',
        '$$',
        '\n',
        '<answer>',
        '####\n',
        ' ',
    ):
        extract_answer(piece * 20_000 * size)


@pytest.mark.parametrize(
    'text, answer',
    [
        ('7', '7'),
        (' 7 ', '7'),
        ('2+5=<<2+5=7>>7\n#### 7', '7'),
        ('#### 7', '7'),
        ('The answer is 7.', '7'),
        ('Answer: 7', '7'),
        ('<answer>7</answer>', '7'),
        (r'$\boxed{7}$', '7'),
        ('7 (seven)', '7 (seven)'),
        ('Mrs. Hilt', 'Mrs. Hilt'),
        ('$$7$$', '$$7$$'),
    ],
)
def test_a_reference_that_is_a_solution_is_read_by_its_marker(text, answer):
    assert references.reference_answer(text) == answer
    assert references.check_reference(text) is None


@pytest.mark.parametrize(
    'text, reason',
    [
        ('', 'empty'),
        (' \n', 'empty'),
        ('nan', 'no value'),
        ('NaN', 'no value'),
        ('inf', 'no value'),
        ('-Infinity', 'no value'),
        ('#### nan', 'no value'),
        ('$', 'itself'),
        ('...', 'itself'),
        (r'\boxed{7', 'marker'),
        ('####', 'marker'),
    ],
)
def test_a_reference_that_nothing_meets_has_a_reason(text, reason):
    assert reason in references.check_reference(text)


def test_every_marker_has_a_form_here():
    assert set(FORMS) | {'next_line'} == set(extraction.MARKERS)


@pytest.mark.parametrize(
    ('text', 'answer'),
    [
        (r'<think>\boxed{5}</think>' + '\nThe answer is 6.', '6'),
        ('<think>#### 5</think> \\boxed{7}', '7'),
        (r'<think>\boxed{5}</think>', None),
        (r'<think>\boxed{5}', '5'),  # a thought that does not end is a text like any other
    ],
)
def test_what_is_thought_is_no_answer(text, answer):
    assert extract_answer(text) == answer
