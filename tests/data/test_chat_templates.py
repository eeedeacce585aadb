import dataclasses
import itertools

import numpy as np
import pytest

from elenchus.data import records
from elenchus.data.critiques import record_files
from elenchus.data.text import chat as chats
from elenchus.data.text import chat_templates, tokenizer_json
from elenchus.data.text import tokenizer as tokenizers
from tests.support import hf_tokenizers, problem_lines

TEXTS = hf_tokenizers.CONVERSATION
FILES = hf_tokenizers.files(hf_tokenizers.golden()['merges'])
FAMILIES = sorted(hf_tokenizers.golden()['templates'])


def read(name):
    content = FILES[name]
    if isinstance(content, bytes):
        return tokenizers.SentencePieceTokenizer(content)
    return tokenizer_json.JsonTokenizer(content.encode())


CHATS = {
    name: chats.Chat(read(name), chat_templates.TEMPLATES[name.removesuffix('.model')])
    for name in FILES
}


@pytest.fixture(params=sorted(CHATS))
def name(request):
    return request.param


def conversation(chat):
    played = [chat.text_turn(role, TEXTS[role]) for role in records.PLAYER_OF_ROLE]
    return (*chat.question_turns(TEXTS['question']), *played)


def trained(chat, turns, roles):
    return chat.example(turns, trained=roles, weights=None, last_only=False)


def assert_as_published(example, expected):
    """Asserts the published ids and mask, up to the last end token."""
    last = expected['mask'].rindex('1') + 1
    mask = ''.join(str(int(x)) for x in example.loss_mask)
    assert example.tokens.tolist() == expected['ids'][:last]
    assert mask == expected['mask'][:last]


def test_the_actor_reads_the_published_form_and_is_trained_on_its_own_words(name):
    chat, expected = CHATS[name], hf_tokenizers.golden()['templates'][name.removesuffix('.model')]
    turns = conversation(chat)
    assert_as_published(trained(chat, turns, ('attempt', 'refinement')), expected['actor'])
    assert chat.context(turns[:3], 'refinement') == expected['actor']['prompt']


def test_the_critic_reads_question_and_attempt_as_one_message(name):
    chat, expected = CHATS[name], hf_tokenizers.golden()['templates'][name.removesuffix('.model')]
    turns = conversation(chat)[:3]
    assert_as_published(trained(chat, turns, ('critique',)), expected['critic'])
    assert chat.context(turns[:2], 'critique') == expected['critic']['prompt']


def test_every_prompt_is_the_prefix_of_the_example_that_trains_what_follows(name):
    chat = CHATS[name]
    turns = conversation(chat)
    for i, turn in enumerate(turns[1:], start=1):
        prompt = chat.context(turns[:i], turn.role)
        tokens = trained(chat, turns[: i + 1], (turn.role,)).tokens.tolist()
        assert tokens == [*prompt, *turn.tokens]


def test_sampled_ids_are_trained_as_they_are_however_they_would_be_encoded(name):
    chat = CHATS[name]
    letters = [chat.tokenizer.encode(letter)[-1] for letter in 'pens']  # one token when encoded
    odd = (*letters, chat.end_id)
    turn = chat.sampled_turn('attempt', odd, np.arange(5.0) - 9)
    example = trained(chat, (*chat.question_turns('How many?'), turn), ('attempt',))
    assert example.tokens[example.loss_mask == 1].tolist() == list(odd)
    assert example.old_logprobs[example.loss_mask == 1].tolist() == [-9, -8, -7, -6, -5]
    quoted = chat.context((*chat.question_turns('How many?'), turn), 'critique')
    assert letters in [quoted[i : i + 4] for i in range(len(quoted))]


def test_a_quoted_turn_has_no_end_token_and_keeps_its_steps_and_logprobs(name):
    chat = CHATS[name]
    question, attempt, critique, _ = conversation(chat)
    attempt = chat.sampled_turn('attempt', attempt.tokens, [-1.0] * len(attempt.tokens))
    example = trained(chat, (question, attempt, critique), ('critique',))
    body = (example.roles == records.ROLES.index('attempt')) & (example.steps > 0)
    kept = int(body.sum())
    assert example.tokens[body].tolist() == list(attempt.tokens[:kept])
    assert kept < len(attempt.tokens) and chat.end_id not in attempt.tokens[:kept]
    assert example.old_logprobs[body].tolist() == [-1.0] * kept
    assert sorted(set(example.steps[body])) == [1, 2, 3]


def test_an_attempt_cut_off_is_closed_for_the_next_reader_but_not_trained_to_end(name):
    chat = CHATS[name]
    cut = chat.sampled_turn('attempt', chat.tokenizer.encode('3 + 14'), ())
    turns = (*chat.question_turns('How many?'), cut, chat.text_turn('critique', 'Wrong'))
    prompt = chat.context(turns, 'refinement')
    assert chat.end_id in prompt[len(chat.context(turns[:1], 'attempt')) :]
    example = trained(chat, turns[:2], ('attempt',))
    assert example.tokens[example.loss_mask == 1].tolist() == list(cut.tokens)


def test_text_comes_back_and_lines_are_steps(name):
    chat = CHATS[name]
    for role in records.PLAYER_OF_ROLE:
        turn = chat.text_turn(role, TEXTS[role])
        assert chat.text(turn) == TEXTS[role] and chat.is_finished(turn)
        ends = itertools.pairwise((0, *turn.step_ends))
        lines = [chat.tokenizer.decode(turn.tokens[a:b]).strip() for a, b in ends]
        assert lines == [line for line in TEXTS[role].split('\n') if line]


def test_a_guide_belongs_to_the_question_s_message(name):
    chat = CHATS[name]
    turns = chat.question_turns('How many?', guide='The answer is 3.')
    prompt = chat.tokenizer.decode(chat.context(turns, 'attempt'))
    assert 'How many?\n\nThe' in prompt.replace('\n\n ', '\n\n')
    special = [
        [t for t in chat.context(part, 'attempt') if t in chat.tokenizer.special_ids]
        for part in (turns, turns[:1])
    ]
    assert special[0] == special[1]


def test_a_guide_after_a_critique_shares_its_message_and_leaves_its_ids(name):
    chat = CHATS[name]
    turns = conversation(chat)[:3]
    (_, guide) = chat.question_turns('How many?', guide='Think.')
    rendered = chat.render((*turns, guide), 'refinement')
    critique, hint = rendered[2].body, rendered[3]
    assert (
        critique[: len(turns[2].tokens) - len(chat._ending)]
        == turns[2].tokens[: -len(chat._ending)]
    )
    assert chat.tokenizer.decode(critique) == TEXTS['critique'] + '\n\n'
    assert hint == ((), guide.tokens)


def test_special_tokens_typed_as_text_stay_text(name):
    chat = CHATS[name]
    special = chat.tokenizer.special_ids
    hostile = ''.join(sorted(chat_templates.SPECIAL_NAMES)) + ' <unk> <pad> x'
    turns = (*chat.question_turns(hostile, guide=hostile), chat.text_turn('attempt', hostile))
    assert not special & {t for turn in turns[:2] for t in turn.tokens}
    clean = (*chat.question_turns('x', guide='x'), chat.text_turn('attempt', 'x'))
    both = [chat.context(conversation, 'critique') for conversation in (turns, clean)]
    assert [t for t in both[0] if t in special] == [t for t in both[1] if t in special]
    assert chat.text(turns[2]) == hostile


def test_a_special_token_of_a_template_is_special_whatever_the_file_says():
    gemma = read('gemma')
    assert gemma.special('<start_of_turn>') in gemma.special_ids
    assert gemma.special('<start_of_turn>') not in gemma.encode('<start_of_turn>')
    assert gemma.encode('\n\n') != 2 * gemma.encode('\n')  # what else the file adds is text


def test_overhead_bounds_the_ids_between_two_turns(name):
    chat = CHATS[name]
    turns = conversation(chat)
    for role in records.PLAYER_OF_ROLE:
        rendered = chat.render(turns, role)[1:]
        assert all(len(turn.lead) <= chat.overhead for turn in rendered)


def test_the_elenchus_template_reads_alike_for_both_players():
    chat = chats.Chat(tokenizers.lab_tokenizer())
    turns = (*chat.question_turns('ben ?'), chat.text_turn('attempt', 'ben : 3'))
    assert chat.render(turns, 'critique') == chat.render(turns, 'refinement')
    assert chat.overhead == chat.correction_overhead == 1
    assert chat.context(turns, 'refinement')[-1] == chat.header('refinement')[0]


def test_one_example_trains_one_player_under_a_family_s_template():
    chat = CHATS['chatml']
    with pytest.raises(ValueError, match="'chatml'.*different prompts"):
        trained(chat, conversation(chat), records.PLAYER_OF_ROLE)
    with pytest.raises(ValueError, match='attempt cannot follow attempt'):
        chat.context(conversation(chat)[:2], 'attempt')
    with pytest.raises(ValueError, match='critique cannot follow critique'):
        chat.context(conversation(chat)[:3], 'critique')


@pytest.mark.parametrize('finished', [True, False])
@pytest.mark.parametrize('text', [None, 'Once more, please.'])
def test_an_attempt_is_refined_without_a_critique_by_an_instruction_of_the_user(
    name, finished, text
):
    """It is a message like any other of the user; so is the whole conversation when trained."""
    chat = CHATS[name]
    if text:
        chat = dataclasses.replace(chat, correction=text)
    question, attempt, _, refinement = conversation(chat)
    if not finished:
        attempt = dataclasses.replace(attempt, tokens=attempt.tokens[:-1], steps=())
    _, instruction = chat.question_turns('', guide=text or chat_templates.CORRECTION)
    expected = chat.context((question, attempt, instruction), 'refinement')
    assert chat.context((question, attempt), 'refinement') == expected
    example = trained(chat, (question, attempt, refinement), ('attempt', 'refinement'))
    assert example.tokens.tolist() == [*expected, *refinement.tokens]
    own = [*attempt.tokens, *refinement.tokens]
    assert example.tokens[example.loss_mask > 0].tolist() == own
    seam = len(example.tokens) - len(own) - len(chat.context((question,), 'attempt'))
    assert seam <= chat.correction_overhead <= seam + 1 + len(chat._ending)
    assert chat.correction_overhead > chat.overhead


def test_a_template_that_the_tokenizer_cannot_spell_is_refused():
    with pytest.raises(ValueError, match=r"template 'llama3'.*'<\|begin_of_text\|>'.*did you mean"):
        chats.Chat(read('chatml'), chat_templates.LLAMA3)
    with pytest.raises(ValueError, match="template 'elenchus'.*'</s>'"):
        chats.Chat(read('chatml'))


def trained_runs(chat, example):
    """Returns the text and the last id of each run of trained tokens."""
    runs = np.split(np.arange(len(example.tokens)), np.flatnonzero(np.diff(example.loss_mask)) + 1)
    trained_ids = [example.tokens[run] for run in runs if example.loss_mask[run[0]]]
    ended = [(chat.tokenizer.decode(ids[:-1]), ids[-1]) for ids in trained_ids]
    return [(text.removesuffix(' ') if len(chat._ending) > 1 else text, i) for text, i in ended]


@pytest.mark.parametrize('name', ['chatml', 'llama2', 'llama3', 'mistral.model', 'gemma'])
def test_gsm8k_is_trained_on_its_solutions_alone(name, shared_data):
    chat = CHATS[name]
    with (shared_data / 'gsm8k' / 'test.jsonl').open(encoding='utf-8') as lines:
        for i, line in zip(range(20), lines, strict=False):
            problem = problem_lines.parse('gsm8k', line, id=str(i))
            turns = (
                *chat.question_turns(problem.question),
                chat.text_turn('attempt', problem.solution),
            )
            example = trained(chat, turns, ('attempt',))
            assert trained_runs(chat, example) == [(problem.solution, chat.end_id)]
            prompt = chat.tokenizer.decode(example.tokens[example.loss_mask == 0])
            assert problem.question in prompt and problem.solution not in prompt


@pytest.mark.parametrize('name', ['chatml', 'llama2', 'llama3', 'mistral.model', 'gemma'])
def test_mathcritique_trains_the_critic_on_critiques_and_the_actor_on_refinements(
    name, shared_data
):
    chat = CHATS[name]
    for record in record_files.read(shared_data / 'mathcritique' / 'gsm8k.json')[:10]:
        texts = (record.response, record.critique, record.refinement)
        model_turns = map(chat.text_turn, ('attempt', 'critique', 'refinement'), texts)
        turns = (*chat.question_turns(record.question), *model_turns)
        critic = trained(chat, turns[:3], ('critique',))
        actor = trained(chat, turns, ('refinement',))
        assert trained_runs(chat, critic) == [(record.critique, chat.end_id)]
        assert trained_runs(chat, actor) == [(record.refinement, chat.end_id)]
        prompt = chat.tokenizer.decode(critic.tokens[critic.loss_mask == 0])
        assert record.question in prompt and record.response in prompt
        ends = [(x.tokens[x.loss_mask == 0] == chat.end_id).sum() for x in (critic, actor)]
        users = 'llama' in name or 'mistral' in name  # a user's message has the end token, or not
        assert ends == ([0, 1] if users and name != 'llama3' else [1, 3])


def test_the_whole_of_a_conversation_as_its_two_readers_see_it():
    chat = CHATS['chatml']
    turns = conversation(chat)
    specials = {chat.tokenizer.special(s): s for s in ('<|im_start|>', '<|im_end|>')}

    def marked(example):
        texts = [specials.get(t, chat.tokenizer.decode([t])) for t in example.tokens.tolist()]
        marks = zip(texts, example.loss_mask, strict=True)
        return ''.join(f'[{text}]' if mark else text for text, mark in marks).replace('][', '')

    question, attempt, critique, refinement = (TEXTS[role] for role in TEXTS)
    user, assistant, end = '<|im_start|>user\n', '<|im_start|>assistant\n', '<|im_end|>'
    assert marked(trained(chat, turns, ('attempt', 'refinement'))) == (
        f'{user}{question}{end}\n{assistant}[{attempt}{end}]\n'
        f'{user}{critique}{end}\n{assistant}[{refinement}{end}]'
    )
    assert marked(trained(chat, turns[:3], ('critique',))) == (
        f'{user}{question}\n\n{attempt}{end}\n{assistant}[{critique}{end}]'
    )
