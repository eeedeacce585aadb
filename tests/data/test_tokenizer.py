import functools
import json
import pathlib
import pickle
import re
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text import tokenizer_training

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = (
    *('ann', 'ben', 'cal', 'dan', 'eve', 'fay', 'gus', 'hal', 'ida', 'jon', 'kim', 'leo'),
    *('mia', 'ned', 'ola', 'pam', 'quin', 'ron', 'sue', 'tom', 'una', 'vic', 'wes', 'zoe'),
)
WORDS = (*NAMES, *'0123456789:+-;?', 'is', '####', 'correct', 'wrong', 'answer')
CORPUS = (
    'Eve has 7 apples and gives 4 to Ben. How many are left?\n',
    '7 - 4 = <<7-4=3>>3 apples are left.\n#### 3',
    'A train drives 120 km in 2 hours.\n It drives 120 / 2 = 60 km an hour.\n#### 60',
)
SPECIAL = (
    tokenizers.PAD,
    tokenizers.EOS,
    tokenizers.UNK,
    tokenizers.BOS,
    *tokenizers.HEADERS,
)

lines = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(' '.join)
lab_text = st.lists(lines, max_size=6).map('\n '.join)
any_text = st.text(max_size=60)


@functools.cache
def words():
    return tokenizers.word_tokenizer(WORDS)


@functools.cache
def trained(model_type='bpe'):
    model = tokenizers.train_tokenizer(CORPUS, vocab_size=400, model_type=model_type)
    return tokenizers.SentencePieceTokenizer.from_bytes(model)


@pytest.fixture(params=['words', 'bpe', 'unigram', 'char'])
def tokenizer(request):
    return words() if request.param == 'words' else trained(request.param)


def test_special_tokens_have_the_ids_of_the_contract(tokenizer):
    assert [tokenizer.special(name) for name in SPECIAL] == list(range(9))
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.newline_id) == (0, 1, 9)


@hypothesis.given(lab_text)
def test_lab_text_comes_back_exactly_and_is_one_token_a_word(text):
    ids = words().encode(text)
    assert words().decode(ids) == text
    assert len(ids) == len(text.split()) + text.count('\n')
    assert words().special('<unk>') not in ids


def test_every_word_is_a_single_id_of_its_own():
    ids = [words().encode(word) for word in WORDS]
    assert all(len(word) == 1 for word in ids)
    assert sorted(i for (i,) in ids) == list(range(11, words().vocab_size))


def test_word_ids_are_the_same_in_another_process():
    code = (
        'from elenchus.data.text import tokenizer as t; '
        f'print(t.word_tokenizer({WORDS!r}).fingerprint)'
    )
    run = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == words().fingerprint


def test_words_are_split_at_spaces_and_line_breaks_only():
    assert words().encode('3\n hal') == [
        *words().encode('3'),
        words().newline_id,
        *words().encode('hal'),
    ]


@hypothesis.given(any_text)
def test_words_never_crash_on_other_text(text):
    assert words().decode(words().encode(text)) is not None


def test_an_unknown_word_is_unknown():
    assert words().special('<unk>') in words().encode('zeno is 7')


@pytest.mark.parametrize('model_type', ['bpe', 'unigram'])
@hypothesis.given(text=st.one_of(any_text, lab_text))
def test_any_text_comes_back_exactly_through_bytes(model_type, text):
    hypothesis.assume('\u2581' not in text and '\x00' not in text)  # SentencePiece's own space
    assert trained(model_type).decode(trained(model_type).encode(text)) == text


@hypothesis.given(
    parts=st.lists(st.one_of(st.sampled_from(SPECIAL), st.sampled_from(WORDS), any_text)),
    between=st.sampled_from(['', ' ', '\n']),
)
def test_special_tokens_typed_as_text_never_become_special(parts, between):
    for tokenizer in (trained('bpe'), trained('unigram')):
        assert all(i >= 9 for i in tokenizer.encode(between.join(parts)))
    unknown = words().special('<unk>')
    assert all(i >= 9 or i == unknown for i in words().encode(between.join(parts)))


def test_digits_are_single_tokens():
    assert len(trained().encode('x120')) - len(trained().encode('x')) == 3


def test_special_tokens_have_no_text(tokenizer):
    ids = tokenizer.encode('ben is 3')
    assert tokenizer.decode([6, *ids, tokenizer.eos_id]) == tokenizer.decode(ids)


@pytest.mark.parametrize('model_type', ['bpe', 'unigram', 'char'])
def test_training_twice_gives_the_same_bytes(model_type):
    again = tokenizers.train_tokenizer(iter(CORPUS), vocab_size=400, model_type=model_type)
    assert again == trained(model_type).model


def test_vocab_size_is_a_bound_that_few_texts_need_not_reach():
    model = tokenizers.train_tokenizer(CORPUS, vocab_size=50_000, model_type='bpe')
    assert tokenizers.SentencePieceTokenizer(model).vocab_size < 50_000
    assert trained().vocab_size <= 400


def test_a_vocabulary_too_small_names_its_size():
    with pytest.raises(ValueError, match='vocab_size=20'):
        tokenizers.train_tokenizer(CORPUS, vocab_size=20, model_type='bpe')


def test_an_unknown_model_type_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'unigram'"):
        tokenizers.train_tokenizer(CORPUS, vocab_size=400, model_type='unigrams')


def test_a_missing_special_token_names_the_nearest():
    with pytest.raises(ValueError, match="'attempts'.*'<attempt>'"):
        words().special('attempts')
    with pytest.raises(ValueError, match='ben'):
        words().special('ben')


@pytest.mark.parametrize('bad', [('ben', 'ben'), ('ben', ''), ('a b',), ('a\n',), ('\u2581a',)])
def test_word_lists_hold_single_words_once(bad):
    with pytest.raises(ValueError):
        tokenizers.word_tokenizer(bad)


def test_saving_and_loading_change_nothing(tokenizer, tmp_path):
    path = tmp_path / 'deep' / 'tok.model'
    tokenizer.save(path)
    assert tokenizers.load_tokenizer(path) == tokenizer
    assert [entry.name for entry in path.parent.iterdir()] == ['tok.model']


def test_a_tokenizer_survives_pickling(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy == tokenizer and hash(copy) == hash(tokenizer)
    assert copy.encode('ben is 3') == tokenizer.encode('ben is 3')


def test_fingerprints_tell_tokenizers_apart():
    every = (words(), *(trained(kind) for kind in ('bpe', 'unigram', 'char')))
    assert len({tokenizer.fingerprint for tokenizer in every}) == 4
    assert tokenizers.word_tokenizer(WORDS[::-1]).fingerprint != words().fingerprint


def test_loading_picks_by_suffix_and_names_the_remedy(tmp_path):
    with pytest.raises(ValueError, match='tokenizer.bin: .*tokenizer.json'):
        tokenizers.load_tokenizer(tmp_path / 'tokenizer.bin')
    (tmp_path / 'tokenizer.json').write_text('{"model": {}}')
    with pytest.raises(ValueError, match="tokenizer.json: .*missing field 'added_tokens'"):
        tokenizers.load_tokenizer(tmp_path / 'tokenizer.json')
    (tmp_path / 'tokenizer.json').write_bytes(words().model)
    with pytest.raises(ValueError, match='tokenizer.json: .*invalid JSON'):
        tokenizers.load_tokenizer(tmp_path / 'tokenizer.json')


def test_other_bytes_are_refused():
    with pytest.raises(ValueError, match='not a SentencePiece model'):
        tokenizers.SentencePieceTokenizer.from_bytes(b'not a model')


@pytest.fixture(scope='module')
def script(fork):
    """Runs the script; a fork for each run, of one process that has imported it."""
    module = 'elenchus.scripts.tools.train_tokenizer'
    return lambda *flags: fork(module, ROOT, flags)


@pytest.mark.slow
def test_the_script_trains_on_text_and_jsonl_files(script, tmp_path):
    plain, records, out = (tmp_path / name for name in ('a.txt', 'b.jsonl', 'tok.model'))
    plain.write_text('ben is 3\n\nhal is 0\n')
    records.write_text(json.dumps({'question': CORPUS[0], 'answer': CORPUS[1]}) + '\n')
    run = script(f'--input={plain},{records}', '--vocab_size=400', f'--output={out}')
    assert run.code == 0, run.errors
    expected = tokenizers.train_tokenizer(
        ['ben is 3', 'hal is 0', CORPUS[0], CORPUS[1]], vocab_size=400, model_type='bpe'
    )
    assert tokenizers.load_tokenizer(out).model == expected
    assert '4 texts' in run.output


@pytest.mark.slow
def test_the_script_reads_problems_as_runs_do(script, tmp_path):
    row = {'question': '3 pens and 4?', 'answer': 7, 'solution': '3 + 4 = 7\n#### 7', 'level': None}
    for name, text in {'b.jsonl': json.dumps(row), 'b.json': json.dumps([row])}.items():
        (tmp_path / name).write_text(text, encoding='utf-8-sig')
        texts = list(tokenizer_training.read_texts(tmp_path / name))
        assert texts == ['3 pens and 4?', '7', '3 + 4 = 7\n#### 7']
    run = script(f'--input={tmp_path}/b.jsonl', '--vocab_size=400', f'--output={tmp_path}/t.model')
    assert run.code == 0 and '3 texts' in run.output, run.errors


@pytest.mark.parametrize('solution', ['', ' \n', None])
def test_a_problem_without_solution_has_the_other_texts(tmp_path, solution):
    row = {'question': '3 pens and 4?', 'answer': '7', 'solution': solution}
    (tmp_path / 'b.jsonl').write_text(json.dumps(row))
    assert list(tokenizer_training.read_texts(tmp_path / 'b.jsonl')) == ['3 pens and 4?', '7']


@pytest.mark.parametrize(
    'name, text, flags, message',
    [
        ('b.jsonl', '{"question": "1"}\n{"prompt": "2"}', (), r'b\.jsonl:2: .*question, answer'),
        ('b.jsonl', '{"question": ["1"]}', (), r'b\.jsonl:1: question=\[.*neither text nor'),
        ('b.jsonl', '{"question": true}', (), r'b\.jsonl:1: question=True'),
        ('b.jsonl', '', (), r'b\.jsonl: there is no text'),
        ('b.txt', ' \n', (), r'b\.txt: there is no text'),
        ('b.csv', 'x', (), r'b\.csv: unknown file type'),
        ('b.txt', 'x', ('--vocab_size=2',), 'vocab_size=2'),
        ('b.txt', 'x', ('--vocab_size=99999999999',), 'vocab_size=99999999999'),
        ('b.txt', 'x', ('more',), 'unexpected argument'),
        ('b.txt', 'x', ('--output=t.txt',), 'must end in .model'),
        ('b.txt', 'x', ('--input=none.txt',), 'file not found: none.txt'),
    ],
)
def test_the_script_says_in_one_line_what_it_cannot_use(
    script, tmp_path, name, text, flags, message
):
    (tmp_path / name).write_text(text)
    output = tmp_path / 't.model'
    run = script(f'--input={tmp_path / name}', '--vocab_size=400', f'--output={output}', *flags)
    assert run.code == 2 and len(run.errors.splitlines()) == 1, run.errors
    assert re.search(message, run.errors), run.errors
    assert not output.exists()
