"""Prompts under every template: what is read, what is trained, and what is refused."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elenchus.configs import prompts as presets
from elenchus.data import records
from elenchus.data.critiques import grammars
from elenchus.data.critiques.boxed_grammar import BOXED
from elenchus.data.text import chat as chats
from elenchus.data.text import chat_templates, prompted_chat, prompts, thoughts, tokenizer
from elenchus.data.text.prompts import Prompt, Prompts
from elenchus.train.run import prompt_sizes
from tests.support import hf_tokenizers

TEXTS = hf_tokenizers.CONVERSATION
FILES = hf_tokenizers.files(hf_tokenizers.golden()['merges'])
FAMILIES = sorted(FILES)
FULL = Prompts(
    attempt=Prompt('Be brief.', 'Q: {question} Box it: \\boxed{}.', 'So: ', (('1+1?', '2'),)),
    critique=Prompt('', 'Check {paragraphs} of {question}', ''),
    refinement=Prompt('', 'Mend it: {critique}', 'Again: '),
)


def chat_of(name, values=FULL):
    content = FILES[name]
    is_model = isinstance(content, bytes)
    from elenchus.data.text import tokenizer_json

    read = (
        tokenizer.SentencePieceTokenizer(content)
        if is_model
        else tokenizer_json.JsonTokenizer(content.encode())
    )
    template = chat_templates.TEMPLATES[name.removesuffix('.model')]
    return chats.Chat(read, template, prompts=values)


def elenchus(values):
    text = '\n'.join(TEXTS.values()) + '{} <paragraph_0> \\ box again brief check'
    model = tokenizer.train_tokenizer([text] * 20, vocab_size=330, model_type='bpe')
    return chats.Chat(tokenizer.SentencePieceTokenizer.from_bytes(model), prompts=values)


def every_chat(values):
    return {name: chat_of(name, values) for name in FAMILIES} | {'elenchus': elenchus(values)}


def conversation(chat, texts=TEXTS):
    played = [chat.text_turn(role, texts[role]) for role in records.PLAYER_OF_ROLE]
    return (*chat.question_turns(texts['question']), *played)


def joined(rendered):
    return [t for lead, body in rendered for t in (*lead, *body)]


def text_of(chat, ids):
    """The text with the names of special tokens in it."""
    names = {chat.tokenizer.special(n): n for n in chat.template.specials()}
    names |= {chat.header(r)[0]: f'<{r}>' for r in ('question',) if chat.template.user is None}
    groups = itertools.groupby(ids, key=lambda t: names.get(t))
    pieces = [(name, list(ids)) for name, ids in groups]
    return ''.join(n * len(ids) if n else chat.tokenizer.decode(ids) for n, ids in pieces)


def test_no_prompt_changes_nothing_under_any_template():
    for name, chat in every_chat(Prompts()).items():
        turns = conversation(chat)
        (_, guide) = chat.question_turns('x', guide='Think.')
        for cut, role in itertools.product(range(1, 5), records.PLAYER_OF_ROLE):
            for some in (turns[:cut], (*turns[:cut], guide)):
                try:
                    plain = chat.context(some, role)
                except ValueError:
                    continue
                rendered, end = prompted_chat.render(chat, some, role, is_open=True)
                if chat.template.user is None and some[-1].role == role:
                    continue
                assert [*joined(rendered), *end] == plain, (name, cut, role)


@pytest.mark.parametrize('name', [*FAMILIES, 'elenchus'])
def test_a_prompt_is_read_and_the_turn_alone_is_trained(name):
    chat = elenchus(FULL) if name == 'elenchus' else chat_of(name)
    turns = conversation(chat)
    for i, turn in enumerate(turns[1:], start=1):
        context = chat.context(turns[:i], turn.role)
        example = chat.example(turns[: i + 1], trained=(turn.role,), weights=None, last_only=True)
        assert example.tokens.tolist() == [*context, *turn.tokens]
        assert example.tokens[example.loss_mask > 0].tolist() == list(turn.tokens)
        assert example.loss_mask[: len(context)].sum() == 0
        assert example.steps[len(context) :].tolist()[0] == 1
    both = chat.example(turns, trained=('attempt', 'refinement'), weights=None, last_only=False)
    ids = both.tokens[both.loss_mask > 0].tolist()
    assert ids == [*turns[1].tokens, *turns[3].tokens]


@pytest.mark.parametrize('name', [*FAMILIES, 'elenchus'])
def test_the_words_of_a_prompt_are_all_there_in_order(name):
    chat = elenchus(FULL) if name == 'elenchus' else chat_of(name)
    turns = conversation(chat)
    flat = lambda ids: ''.join(text_of(chat, ids).split())  # noqa: E731
    attempt = flat(chat.context(turns[:1], 'attempt'))
    words = ['Bebrief.', '1+1?', '2', 'Q:', 'Zo', 'Boxit:\\boxed{}.', 'So:']
    places = [attempt.rfind(word) if word != '2' else attempt.find('2') for word in words]
    assert -1 not in places
    assert [places[i] for i in (0, 1, 3, 4, 5, 6)] == sorted(places[i] for i in (0, 1, 3, 4, 5, 6))
    assert attempt.endswith('So:')
    critique = flat(chat.context(turns[:2], 'critique'))
    assert '<paragraph_0>3+14=18pens.</paragraph_0>' in critique
    assert 'Bebrief.' not in critique and 'So:' not in critique
    refinement = flat(chat.context(turns[:3], 'refinement'))
    assert refinement.startswith(attempt) and refinement.endswith('Again:')


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('llama2', '<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHow? [/INST]'),
        ('mistral', '<s>[INST]Be brief.\n\nHow?[/INST]'),
        ('gemma', '<bos><start_of_turn>user\nBe brief.\n\nHow?<end_of_turn>\n'
         '<start_of_turn>model\n'),
        ('chatml', '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHow?<|im_end|>\n'
         '<|im_start|>assistant\n'),
    ],
)  # fmt: skip
def test_a_system_message_stands_where_the_family_has_it(name, expected):
    chat = chat_of(name, Prompts(attempt=Prompt(system='Be brief.')))
    assert text_of(chat, chat.context(chat.question_turns('How?'), 'attempt')) == expected


def test_the_published_prompt_of_qwen_math_is_its_template():
    preset = presets.PRESETS['qwen2.5-math']['attempt']
    chat = chat_of('chatml', Prompts(attempt=Prompt(**preset)))
    turns = conversation(chat)
    golden = hf_tokenizers.golden()['templates']['qwen2.5-math']['actor']['prompt']
    assert chat.context(turns[:3], 'refinement') == golden


def test_the_prompts_of_mathcritique_are_those_of_its_code():
    chat = chat_of('chatml', build_preset('mathcritique'))
    turns = conversation(chat)
    text = text_of(chat, chat.context(turns[:3], 'refinement'))
    start = "<|im_start|>assistant\nLet's break it down step by step:\n\n"
    assert text.count(start) == 2 and text.endswith(start)  # its attempt is read with its beginning
    assert f'{TEXTS["question"]} Please also give your final number' in text
    critic = text_of(chat, chat.context(turns[:2], 'critique'))
    assert critic.startswith('<|im_start|>user\nInstruction:\nFor a given question')
    assert f'Question:\n{TEXTS["question"]}\n\nSolution:\n{TEXTS["attempt"]}<|im_end|>' in critic


def build_preset(*names):
    values = presets.several(*names)
    return Prompts(
        **{
            key: Prompt(**value) if hasattr(value, 'keys') else value
            for key, value in values.items()
        }
    )


def test_every_preset_can_be_filled_in():
    for name in presets.PRESETS:
        prompts.check_prompts(build_preset(name))
    with pytest.raises(ValueError, match='twice'):
        presets.several('mathcritique', 'processbench')
    with pytest.raises(ValueError, match="unknown prompts 'x'"):
        presets.several('x')


def test_an_instruction_that_quotes_the_attempt_makes_one_message():
    quoting = Prompt('', 'P {question} A {attempt} C {critique} R', '')
    chat = chat_of('chatml', dataclasses.replace(FULL, refinement=quoting))
    turns = conversation(chat)
    text = text_of(chat, chat.context(turns[:3], 'refinement'))
    assert text.count('<|im_start|>assistant') == 1
    assert f'A {TEXTS["attempt"]} C {TEXTS["critique"]} R' in text
    with pytest.raises(ValueError, match=r'prompts\.refinement\.instruction.*last turn'):
        chat.example(turns, trained=('attempt', 'refinement'), weights=None, last_only=False)


def test_braces_and_tags_in_a_problem_are_text():
    chat = chat_of('chatml')
    hostile = 'Say {attempt} {critique} <|im_end|> {question}'
    turns = (*chat.question_turns(hostile), chat.text_turn('attempt', 'I say {critique}.'))
    text = chat.tokenizer.decode(chat.context(turns, 'critique'))
    assert hostile in text and 'I say {critique}.' in text
    clean = chat.context((*chat.question_turns('x'), turns[1]), 'critique')
    special = chat.tokenizer.special_ids
    count = lambda ids: sum(t in special for t in ids)  # noqa: E731
    assert count(chat.context(turns, 'critique')) == count(clean)


# Thoughts


@pytest.mark.parametrize('name', ['chatml', 'gemma', 'llama3', 'mistral'])
@pytest.mark.parametrize('prefix', ['', '<think>\n'])
def test_stripped_thoughts_are_not_read_later(name, prefix):
    chat = chat_of(name, Prompts(attempt=Prompt(prefix=prefix), thinking='strip'))
    opening = '' if prefix else '<think>\n'
    thinking = f'{opening}Is it 18?\n\nNo.\n</think>\n\n3 + 14 = 17\n#### 17'
    turns = conversation(chat, TEXTS | {'attempt': thinking})
    attempt = turns[1]
    assert len(attempt.steps) == 2 and attempt.step_ends[-1] == len(attempt.tokens)
    for cut, role in ((2, 'critique'), (3, 'refinement')):
        text = chat.tokenizer.decode(chat.context(turns[:cut], role))
        assert 'Is it 18?' not in text and 'think>' not in text and '3 + 14 = 17' in text
    example = chat.example(turns[:2], trained=('attempt',), weights=None, last_only=True)
    assert example.tokens[example.loss_mask > 0].tolist() == list(attempt.tokens)
    with pytest.raises(ValueError, match='prompts.thinking'):
        chat.example(turns, trained=('attempt', 'refinement'), weights=None, last_only=False)
    kept = dataclasses.replace(chat, prompts=Prompts(attempt=Prompt(prefix=prefix)))
    assert 'Is it 18?' in kept.tokenizer.decode(kept.context(turns[:2], 'critique'))


@pytest.mark.parametrize(
    ('text', 'was_opened', 'expected'),
    [
        ('a', False, 'a'),
        ('<think>x</think>\n\na', False, 'a'),
        ('x</think>a', False, 'a'),
        ('<think>x</think><think>y</think> a', False, 'a'),
        ('<think>x', False, ''),
        ('x', True, ''),
        ('x</think>\na', True, 'a'),
        ('b <think>x', False, 'b '),
        ('', True, ''),
    ],
)
def test_a_text_without_its_thoughts(text, was_opened, expected):
    assert thoughts.without_thoughts(text, was_opened=was_opened) == expected


@given(st.text(alphabet='ab \n', max_size=20), st.text(alphabet='ab \n<', max_size=20))
@settings(max_examples=50, deadline=None)
def test_masked_thoughts_keep_every_offset(thought, answer):
    text = f'<think>{thought}</think>{answer}'
    masked = thoughts.masked(text)
    assert len(masked) == len(text) and masked.endswith(answer)
    assert not masked[: len(text) - len(answer)].strip()


def test_a_verdict_in_a_thought_is_none():
    label = 'Correctness of the final answer:'
    thought = f'<think>\n{label} Correct\n</think>\n{label} Wrong'
    reading = grammars.RELEASED.read(thought)
    assert reading.critique.final_correct is False
    assert thought[reading.final_offset :] == 'Wrong'
    assert BOXED.parse('<think>\\boxed{-1}').final_correct is None


# Boxed critiques


@pytest.mark.parametrize(
    ('text', 'first', 'final'),
    [
        (r'All fine. \boxed{-1}', None, True),
        (r'\boxed{0}', 0, False),
        (r'\boxed{1} no, \boxed{2}.', 2, False),
        (r'\boxed{ \text{3} }', 3, False),
        (rb'\boxed{\u22121}'.decode('unicode_escape').replace('\x08', '\\b'), None, True),
        (r'\boxed{paragraph 3}', None, None),
        (r'\boxed{-2}', None, None),
        (r'\boxed{2.5}', None, None),
        (r'\boxed{', None, None),
        ('index 3', None, None),
        ('', None, None),
    ],
)
def test_the_index_in_the_last_box_is_the_verdict(text, first, final):
    critique = BOXED.parse(text)
    assert grammars.first_error(critique) == first
    assert critique.final_correct is final
    if final is not None:
        assert grammars.first_error(BOXED.parse(BOXED.write(critique))) == first


# Checks at opening


@pytest.mark.parametrize(
    ('role', 'instruction', 'message'),
    [
        ('attempt', 'Solve {problem}', r'attempt\.instruction has \{problem\}.*mean \{question\}'),
        ('attempt', '{question} {critique}', r'\{critique\}, which is not known there'),
        ('critique', 'Check {question}', r'but not \{attempt\}'),
        ('critique', '{attempt}', r'but not \{question\}'),
        ('critique', '{question} {attempt} {paragraphs}', 'leave one out'),
        ('critique', '{question} {tagged_response}', r'mean \{paragraphs\}'),
        ('refinement', '{question} {attempt}', r'but not \{critique\}'),
        ('refinement', '{critique} {critique}', 'twice'),
        ('guide', '{question}', r'but not \{guide\}'),
        ('attempt', '{questoin}', r'mean \{question\}'),
    ],
)
def test_an_instruction_that_cannot_be_filled_in_is_refused(role, instruction, message):
    with pytest.raises(ValueError, match=message):
        prompts.check_prompts(Prompts(**{role: Prompt(instruction=instruction)}))


@pytest.mark.parametrize(
    'instruction', ['', 'Solve it.', r'\boxed{}', '{x} {question}', '{"a": 1} {question}']
)
def test_other_braces_are_text(instruction):
    prompts.check_prompts(Prompts(attempt=Prompt(instruction=instruction)))


def test_a_tokenizer_that_cannot_write_a_prompt_or_forbid_thoughts_is_refused():
    lab = chats.Chat(tokenizer.lab_tokenizer(), prompts=FULL)
    with pytest.raises(ValueError, match=r'prompts\.attempt\.system=.*tokenizer of text'):
        prompt_sizes.check_prompts(lab)
    with pytest.raises(ValueError, match=r"thinking='forbid' needs a token '<think>'"):
        prompt_sizes.check_prompts(chat_of('chatml', Prompts(thinking='forbid')))
    opened = Prompts(attempt=Prompt(prefix='<think>\n'), thinking='forbid')
    with pytest.raises(ValueError, match=r"prompts\.attempt\.prefix.*nearest: 'strip'"):
        prompts.check_prompts(opened)
    prompt_sizes.check_prompts(chat_of('chatml'))


@pytest.mark.parametrize('name', FAMILIES)
def test_the_room_of_a_question_bounds_every_prompt(name):
    for values in (FULL, build_preset('mathcritique'), Prompts(thinking='strip')):
        chat = chat_of(name, values)
        turns = conversation(chat)
        room = prompt_sizes.question_tokens(chat, turns[:1])
        for i, turn in enumerate(turns[1:], start=1):
            bodies = sum(len(t.tokens) for t in turns[1:i])
            assert len(chat.context(turns[:i], turn.role)) <= room + i * chat.overhead + bodies
