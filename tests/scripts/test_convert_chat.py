"""Exports stop where the model was trained to stop, and prompt as it was trained."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from elenchus.data.text import chat as chats
from elenchus.data.text import chat_templates
from elenchus.data.text import tokenizer as tokenizers
from elenchus.model import huggingface, transformer
from elenchus.train.checkpoints import (
    carried_files,
    convert,
    exported_chat,
    model_store,
    saved_models,
)
from tests.support import hf_models, hf_tokenizers, tiny_model

FILES = hf_tokenizers.files(hf_tokenizers.golden()['merges'])
MODEL_OF = {'chatml': 'qwen3', 'qwen2.5': 'qwen2', 'qwen2.5-math': 'qwen2', 'llama2': 'llama2',
            'llama3': 'llama3', 'llama3.1': 'llama3', 'mistral': 'mistral',
            'gemma': 'gemma3'}  # fmt: skip
FIRST_END = {'llama3': '<|end_of_text|>', 'llama3.1': '<|end_of_text|>', 'llama2': '</s>',
             'mistral': '</s>', 'gemma': '<eos>'}  # fmt: skip


def write_base(folder, name):
    """Writes a base model whose files name the end token of pre-training; returns its chat."""
    folder.mkdir(parents=True)
    (folder / 'tokenizer.json').write_text(FILES[name])
    tokenizer = tokenizers.load_tokenizer(folder / 'tokenizer.json')
    first = FIRST_END.get(name, '<|endoftext|>')
    end = tokenizer.special(first)
    hf_config = hf_models.CASES[MODEL_OF[name]] | {
        'vocab_size': tokenizer.vocab_size, 'eos_token_id': end, 'tie_word_embeddings': False,
    }  # fmt: skip
    family = huggingface.family_of(hf_config)
    config = convert.imported_config(family, hf_config, 'float32')
    model = jax.eval_shape(lambda: transformer.init_model(config, jax.random.key(0)))
    shapes = {n: leaf.shape for n, leaf in saved_models.parameters(model).items()}
    values = hf_models.weights(
        {t.name: t.shape for t in family.tensors(shapes)}, model_type=hf_config['model_type']
    )
    safetensors.numpy.save_file(values, folder / 'model.safetensors', metadata={'format': 'pt'})
    (folder / 'config.json').write_text(json.dumps(hf_config))
    (folder / 'generation_config.json').write_text(
        json.dumps({'eos_token_id': end, 'temperature': 0.5, 'do_sample': True})
    )
    (folder / 'tokenizer_config.json').write_text(json.dumps({
        'tokenizer_class': 'PreTrainedTokenizerFast', 'eos_token': first,
        'chat_template': 'published', 'padding_side': 'left',
    }))  # fmt: skip
    (folder / 'special_tokens_map.json').write_text(json.dumps({'eos_token': first}))
    (folder / 'chat_template.jinja').write_text('published')
    return chats.Chat(tokenizer, chat_templates.TEMPLATES[name])


def exported(folder, source, **options):
    target = folder / f'back{len(list(folder.iterdir()))}'
    note = convert.export_model(
        source, target, files=options.pop('files', None), mesh=tiny_model.one_device(),
        file_bytes=10**9, **options,
    )  # fmt: skip
    return target, note


def values_of(folder, name):
    return json.loads((folder / name).read_text())


@pytest.fixture
def base(tmp_path):
    """A base model of Qwen 2, imported."""
    write_base(tmp_path / 'theirs', 'qwen2.5')
    convert.import_model(
        tmp_path / 'theirs', tmp_path / 'ours', dtype=None, mesh=tiny_model.one_device()
    )
    return tmp_path / 'ours'


def test_a_model_that_no_run_trained_keeps_its_files(base, tmp_path):
    target, note = exported(tmp_path, base)
    assert 'as copied (--template writes others)' in note
    for name in ('generation_config.json', 'tokenizer_config.json', 'chat_template.jinja'):
        assert (target / name).read_bytes() == (base / name).read_bytes()


def test_a_template_adds_its_end_token_before_those_that_are_there(base, tmp_path):
    chat = chats.Chat(tokenizers.load_tokenizer(base / 'tokenizer.json'), chat_templates.QWEN)
    first = chat.tokenizer.special('<|endoftext|>')
    target, note = exported(tmp_path, base, template='qwen2.5')
    for name in ('config.json', 'generation_config.json'):
        assert values_of(target, name)['eos_token_id'] == [chat.end_id, first]
    assert values_of(target, 'generation_config.json')['temperature'] == 0.5
    written = values_of(target, 'tokenizer_config.json')
    assert (written['eos_token'], written['padding_side']) == ('<|im_end|>', 'left')
    assert written['chat_template'] == (target / 'chat_template.jinja').read_text() != 'published'
    assert values_of(target, 'special_tokens_map.json') == {'eos_token': '<|im_end|>'}
    assert f'ends with <|im_end|> ({chat.end_id}), chat template qwen2.5' in note
    again, _ = exported(tmp_path, base, files=target, template='qwen2.5')
    assert values_of(again, 'config.json') == values_of(target, 'config.json')


def test_missing_files_are_written(base, tmp_path):
    for name in ('generation_config.json', 'tokenizer_config.json', 'special_tokens_map.json'):
        (base / name).unlink()
    target, _ = exported(tmp_path, base, template='chatml')
    assert values_of(target, 'tokenizer_config.json')['eos_token'] == '<|im_end|>'
    assert values_of(target, 'generation_config.json').keys() == {'eos_token_id'}
    assert not (target / 'special_tokens_map.json').exists()


def store_of(base, **chat):
    config, fingerprint = saved_models.read_description(base)
    mesh = tiny_model.one_device()
    return model_store.ModelStore(
        config, mesh, tokenizer_fingerprint=fingerprint, quantize='none', chat=chat or None
    )


def test_a_trained_model_remembers_its_template_and_system_message(base, tmp_path):
    store = store_of(base, template='qwen2.5', system='Be brief.')
    store.save(tmp_path / 'trained', store.load(base))
    target, note = exported(tmp_path, tmp_path / 'trained', files=base)
    assert 'ends with <|im_end|>' in note
    assert 'Be brief.' in (target / 'chat_template.jinja').read_text()
    other, _ = exported(tmp_path, tmp_path / 'trained', files=base, template='qwen2.5-math')
    assert 'boxed' in (other / 'chat_template.jinja').read_text()
    again = store.load(tmp_path / 'trained')
    for one, two in zip(jax.tree.leaves(again), jax.tree.leaves(store.load(base)), strict=True):
        np.testing.assert_array_equal(one, two)
    (base / 'tokenizer.json').unlink()
    _, note = exported(tmp_path, tmp_path / 'trained', files=base)
    assert 'no tokenizer in' in note and '(--files)' in note


@pytest.mark.parametrize('model_type', tokenizers.MODEL_TYPES)
def test_a_tokenizer_of_the_work_directory_is_exported_with_its_model(tmp_path, model_type):
    model = tokenizers.train_tokenizer(
        [f'{i} pens and {i + 7} cups are {2 * i + 7} things' for i in range(200)],
        vocab_size=330 if model_type != 'char' else 60, model_type=model_type,
    )  # fmt: skip
    tokenizer = tokenizers.SentencePieceTokenizer(model)
    config = dataclasses.replace(tiny_model.CONFIG, vocab_size=tokenizer.vocab_size)
    source = tmp_path / 'run' / 'stages' / '01-actor' / 'model'
    store = model_store.ModelStore(
        config, tiny_model.one_device(), tokenizer_fingerprint=tokenizer.fingerprint,
        quantize='none', chat={'template': 'elenchus', 'system': ''},
    )  # fmt: skip
    store.save(source, tiny_model.make_model(config))
    (tmp_path / 'run' / 'config.json').write_text('{"a": "config of a run"}')
    tokenizer.save(tmp_path / 'run' / 'tokenizer.model')
    target, note = exported(tmp_path, source)
    assert (target / 'tokenizer.model').read_bytes() == model
    assert (target / 'chat_template.jinja').is_file() and 'ends with </s>' in note
    is_read = values_of(target, 'tokenizer_config.json').get('tokenizer_class') == 'LlamaTokenizer'
    assert is_read == (model_type == 'bpe') == ('transformers does not read' not in note)

    (tmp_path / 'run' / 'tokenizer.model').write_bytes(FILES['mistral.model'])
    target, note = exported(tmp_path, source)
    assert 'no tokenizer in' in note and not (target / 'tokenizer.model').exists()


@pytest.mark.parametrize('trained_with', ['tokenizer.json', 'tokenizer.model'])
def test_a_folder_may_have_its_tokenizer_in_both_formats(tmp_path, trained_with):
    chat = write_base(tmp_path / 'theirs', 'mistral')
    (tmp_path / 'theirs' / 'tokenizer.model').write_bytes(FILES['mistral.model'])
    base = tmp_path / 'ours'
    convert.import_model(tmp_path / 'theirs', base, dtype=None, mesh=tiny_model.one_device())
    config, fingerprint = saved_models.read_description(base)
    model = saved_models.load_model(
        base, config, mesh=tiny_model.one_device(), tokenizer_fingerprint=fingerprint
    )
    saved_models.save_model(
        tmp_path / 'trained', model, chat={'template': 'mistral', 'system': 'published'},
        tokenizer_fingerprint=carried_files.file_hash(base / trained_with),
    )  # fmt: skip
    target, note = exported(tmp_path, tmp_path / 'trained', files=base)
    assert f'ends with </s> ({chat.end_id})' in note
    assert (target / 'chat_template.jinja').read_text() != 'published'


def test_what_cannot_be_written_is_refused_before_anything_is(base, tmp_path):
    store = store_of(base, template='qwen2.5', system='published')
    store.save(tmp_path / 'trained', store.load(base))
    others = tmp_path / 'others'
    others.mkdir()
    (others / 'tokenizer.json').write_text(FILES['llama3'])
    empty = tmp_path / 'empty'
    empty.mkdir()
    for options, message in (
        ({'template': 'qwen'}, "unknown template 'qwen'; nearest: 'qwen"),
        ({'template': 'llama3'}, "template 'llama3': no special token"),
        ({'template': 'qwen2.5', 'files': empty}, '--template=qwen2.5: no tokenizer in'),
        ({'files': others}, r'is the tokenizer .* but the model was trained with'),
    ):
        with pytest.raises(ValueError, match=message):
            convert.export_model(
                tmp_path / 'trained', tmp_path / 'new', mesh=tiny_model.one_device(),
                file_bytes=10**9, **{'files': base} | options,
            )  # fmt: skip
        assert not (tmp_path / 'new').exists()


def test_end_ids_keep_those_of_the_file():
    assert exported_chat.end_ids({}, 5) == 5
    assert exported_chat.end_ids({'eos_token_id': None}, 5) == 5
    assert exported_chat.end_ids({'eos_token_id': 5}, 5) == 5
    assert exported_chat.end_ids({'eos_token_id': 3}, 5) == [5, 3]
    assert exported_chat.end_ids({'eos_token_id': [3, 5]}, 5) == [3, 5]


@pytest.mark.filterwarnings('default')
@pytest.mark.parametrize('name', MODEL_OF)
def test_transformers_stops_and_prompts_as_in_training(tmp_path, name):
    for module in ('torch', 'transformers'):
        pytest.importorskip(module, exc_type=ImportError)
    import torch
    import transformers

    chat = write_base(tmp_path / 'theirs', name)
    mesh = tiny_model.one_device()
    convert.import_model(tmp_path / 'theirs', tmp_path / 'ours', dtype=None, mesh=mesh)
    target, _ = exported(tmp_path, tmp_path / 'ours', template=name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(target)
    assert tokenizer.eos_token == chat.template.ending[-1].name
    question = 'Zoë has 3 red pens.'
    prompt = tokenizer.apply_chat_template(
        [{'role': 'user', 'content': question}], add_generation_prompt=True, return_dict=False
    )
    assert prompt == chat.context(chat.question_turns(question), 'attempt')

    model = transformers.AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
    ids = torch.tensor([prompt])
    options = {'do_sample': False, 'max_new_tokens': 6, 'pad_token_id': 0}
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state[0, -1]
        model.lm_head.weight[chat.end_id] = 1e3 * hidden / hidden.norm()
        stopped = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    assert stopped[0, len(prompt) :].tolist() == [chat.end_id]
