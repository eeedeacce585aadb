import json
import pickle

import hypothesis
import pytest
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from elenchus.data.text import chat_templates
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.tokenizer_json import JsonTokenizer
from tests.support import hf_tokenizers

FILES = hf_tokenizers.files(hf_tokenizers.golden()['merges'])
JSON = sorted(name for name, text in FILES.items() if isinstance(text, str))
READ = {name: JsonTokenizer(FILES[name].encode()) for name in JSON}
BYTE_LEVEL = ('chatml', 'llama3')
any_text = st.text(max_size=60)


def changed(name, **fields):
    return JsonTokenizer(json.dumps(json.loads(FILES[name]) | fields).encode())


@pytest.mark.parametrize('half', ['\ud83d', 'a\ude00b', '\ude00\ud83d'])
def test_half_a_character_is_refused_by_every_tokenizer(half):
    word = tokenizers.word_tokenizer(['a', 'b'])
    for tokenizer in (*READ.values(), word):
        with pytest.raises(ValueError, match=r'half a surrogate pair, \\u'):
            tokenizer.encode(half)


@pytest.mark.parametrize('name', JSON)
def test_a_byte_order_mark_is_not_part_of_the_file(name):
    marked = JsonTokenizer(FILES[name].encode('utf-8-sig'))
    assert marked.encode('3 + 4') == READ[name].encode('3 + 4')


@pytest.mark.parametrize('name', BYTE_LEVEL)
@hypothesis.given(text=any_text)
def test_any_text_comes_back_exactly_through_bytes(name, text):
    assert READ[name].decode(READ[name].encode(text)) == text


@pytest.mark.parametrize('name', JSON)
@hypothesis.given(
    parts=st.lists(st.one_of(st.sampled_from(sorted(chat_templates.SPECIAL_NAMES)), any_text)),
    between=st.sampled_from(['', ' ', '\n']),
)
def test_special_tokens_typed_as_text_never_become_special(name, parts, between):
    ids = READ[name].encode(between.join(parts))
    assert not READ[name].special_ids - {0} & set(ids)  # 0 may be <unk>


@pytest.mark.parametrize('name', JSON)
def test_special_tokens_have_ids_of_their_own_and_no_text(name):
    tokenizer = READ[name]
    named = chat_templates.TEMPLATES[name].specials()
    ids = [tokenizer.special(special) for special in named]
    assert len(set(ids)) == len(named) and set(ids) <= tokenizer.special_ids
    text = tokenizer.encode('Zoë has 3')
    assert tokenizer.decode([*ids, *text, ids[0]]) == 'Zoë has 3'
    with pytest.raises(ValueError, match='did you mean'):
        tokenizer.special('<attempt>')


@pytest.mark.parametrize('name', JSON)
def test_newline_ids_are_those_with_a_line_break_in_their_text(name):
    tokenizer = READ[name]
    with_break = {i for i in range(tokenizer.vocab_size) if '\n' in tokenizer.decode([i])}
    assert tokenizer.newline_ids == with_break
    pens = tokenizer.encode('pens.\n\n#### 3')
    assert any(i in with_break for i in pens)
    assert name not in BYTE_LEVEL or len(with_break) > 1  # a full stop and its line break are one


def test_a_tokenizer_without_a_line_break_cannot_be_read_for_steps():
    words = models.WordLevel({'<unk>': 0, 'a': 1}, unk_token='<unk>')
    tokenizer = JsonTokenizer(Tokenizer(words).to_str().encode())
    with pytest.raises(ValueError, match='line break'):
        assert tokenizer.newline_ids


def test_a_model_that_reads_special_tokens_out_of_text_is_refused():
    pieces = [('<unk>', 0.0), ('<s>', -1.0), ('<', -2.0), ('s', -2.0), ('>', -2.0)]
    unigram = Tokenizer(models.Unigram(pieces, 0))
    unigram.add_special_tokens(['<s>'])
    with pytest.raises(ValueError, match="encodes the text '<s>'"):
        JsonTokenizer(unigram.to_str().encode())


@pytest.mark.parametrize('model', [
    models.WordLevel({'<unk>': 0, '</s>': 1, '\n': 2, 'a': 3}, unk_token='<unk>'),
    models.WordPiece({'<unk>': 0, '</s>': 1, '\n': 2, 'a': 3}, unk_token='<unk>'),
    models.Unigram([('<unk>', 0.0), ('</s>', 0.0), ('\n', -1.0), ('a', -1.0)], 0),
], ids=['words', 'pieces', 'unigram'])  # fmt: skip
def test_text_may_be_unknown_but_not_another_special_token(model):
    whole = Tokenizer(model)
    whole.pre_tokenizer = pre_tokenizers.Split(Regex(r'[\s\S]'), 'isolated')
    whole.add_special_tokens(['<unk>', '</s>'])
    tokenizer = JsonTokenizer(whole.to_str().encode())
    assert tokenizer.encode('a</s>\n<unk>') == [3, *[0] * 4, 2, *[0] * 5]
    assert tokenizer.newline_ids == {2} and tokenizer.decode([3, 0, 1]) == 'a'


def test_padding_truncation_and_start_tokens_of_the_file_are_not_used():
    cut = {'max_length': 2, 'strategy': 'LongestFirst', 'stride': 0, 'direction': 'Right'}
    pad = {'strategy': {'Fixed': 64}, 'direction': 'Right', 'pad_to_multiple_of': None}
    pad |= {'pad_id': 0, 'pad_type_id': 0, 'pad_token': '!'}
    start = {'SpecialToken': {'id': '<|im_start|>', 'type_id': 0}}
    text = {'Sequence': {'id': 'A', 'type_id': 0}}
    ids = {'<|im_start|>': {'id': '<|im_start|>', 'ids': [317], 'tokens': ['<|im_start|>']}}
    after = {'type': 'TemplateProcessing', 'single': [start, text], 'pair': [start, text]}
    modified = changed(
        'chatml', truncation=cut, padding=pad, post_processor=after | {'special_tokens': ids}
    )
    assert modified.encode('3 pens for Zoë') == READ['chatml'].encode('3 pens for Zoë')


def test_saving_and_loading_change_nothing(tmp_path):
    for name in JSON:
        path = tmp_path / name / 'tokenizer.json'
        READ[name].save(path)
        assert tokenizers.load_tokenizer(path) == READ[name]
        assert tokenizers.find_tokenizer_file(path.parent) == path
    assert tokenizers.find_tokenizer_file(tmp_path) is None


def test_tokenizers_survive_pickling_and_differ_by_content():
    copy = pickle.loads(pickle.dumps(READ['gemma']))
    assert copy == READ['gemma'] and hash(copy) == hash(READ['gemma'])
    assert copy.encode('3 pens') == READ['gemma'].encode('3 pens')
    assert READ['gemma'].fingerprint != READ['mistral'].fingerprint


@pytest.mark.parametrize('name', ['llama2', 'mistral', 'gemma'])
@hypothesis.given(text=st.text('pens has 3+=#\n.ë', max_size=40))
def test_a_model_file_and_its_json_give_the_same_ids(name, text):
    """Mistral's JSON puts no space before text that begins with one; its model file does."""
    text = text.lstrip(' ') if name == 'mistral' else text
    model = tokenizers.SentencePieceTokenizer(FILES[f'{name}.model'])
    assert model.encode(text) == READ[name].encode(text)
    assert model.special_ids == READ[name].special_ids
    assert model.newline_ids == READ[name].newline_ids
    assert model.vocab_size == READ[name].vocab_size


def test_continued_text_gets_no_space_before_it():
    llama, chatml = READ['llama2'], READ['chatml']
    assert tokenizers.encode_continuation(llama, ' pens') == llama.encode('pens')
    assert tokenizers.encode_continuation(llama, 'pens') != llama.encode('pens')
    assert tokenizers.encode_continuation(chatml, ' pens') == chatml.encode(' pens')
    with pytest.raises(ValueError, match='merges'):
        tokenizers.encode_continuation(chatml, '\n', after='.')
