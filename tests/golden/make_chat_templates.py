"""Writes tests/golden/chat_templates.json: conversations rendered by `transformers`.

    python -m tests.golden.make_chat_templates     (needs the extra `peers`)

The jinja templates are the published ones without their parts for tools and system messages. A mask
is 1 on an assistant's text and its end token, located in the rendered text by offsets.
"""

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tests.support import hf_tokenizers

ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    '{% endif %}'
)
CHATML = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content"
    " + '<|im_end|>' + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
LLAMA3_TURNS = (
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    '{%- if add_generation_prompt %}'
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
TEMPLATES = {
    'chatml': CHATML,
    'qwen2.5': (
        "{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
        "assistant.<|im_end|>\\n' }}" + CHATML
    ),
    'qwen2.5-math': (
        "{{- '<|im_start|>system\\nPlease reason step by step, and put your final answer within "
        "\\\\boxed{}.<|im_end|>\\n' }}" + CHATML
    ),
    'llama2': (
        '{% for message in messages %}' + ALTERNATE + "{% set content = message['content'] %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]'"
        " }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}"
        '{% endif %}{% endfor %}'
    ),
    'llama3': '{{- bos_token }}{%- for message in messages %}' + LLAMA3_TURNS,
    'llama3.1': (
        "{{- bos_token }}{%- set date_string = '26 Jul 2024' %}"
        "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}"
        "{{- 'Cutting Knowledge Date: December 2023\\n' }}"
        "{{- 'Today Date: ' + date_string + '\\n\\n' }}{{- '<|eot_id|>' }}"
        '{%- for message in messages %}' + LLAMA3_TURNS
    ),
    'mistral': (
        '{{- bos_token }}{%- for message in messages %}' + ALTERNATE + "{%- if message['role'] == "
        "'user' %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- elif message['role'] == "
        "'assistant' %}{{- ' ' + message['content']|trim + eos_token}}{%- endif %}{%- endfor %}"
    ),
    'gemma': (
        '{{ bos_token }}{% for message in messages %}' + ALTERNATE + "{% if (message['role'] == "
        "'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
        "{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + "
        "'<end_of_turn>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"
    ),
}
BOS_EOS_END = {
    'chatml': (None, '<|endoftext|>', '<|im_end|>'),
    'qwen2.5': (None, '<|endoftext|>', '<|im_end|>'),
    'qwen2.5-math': (None, '<|endoftext|>', '<|im_end|>'),
    'llama2': ('<s>', '</s>', '</s>'),
    'llama3': ('<|begin_of_text|>', '<|end_of_text|>', '<|eot_id|>'),
    'llama3.1': ('<|begin_of_text|>', '<|end_of_text|>', '<|eot_id|>'),
    'mistral': ('<s>', '</s>', '</s>'),
    'gemma': ('<bos>', '<eos>', '<end_of_turn>'),
}


def learn(pre_tokenizer, alphabet) -> list[str]:
    """Returns the merges of a small BPE model trained on the conversation."""
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + 60, initial_alphabet=alphabet, show_progress=False
    )
    headers = ['user', 'assistant', 'model', 'system'] * 4
    model.train_from_iterator([*hf_tokenizers.CONVERSATION.values(), *headers] * 2, trainer)
    merges = json.loads(model.to_str())['model']['merges']
    return [' '.join(merge) for merge in merges if '\n' not in ''.join(merge)]


def render(tokenizer, messages, end: str) -> dict:
    """Returns ids of a conversation, their mask, and the prompt of its last message."""
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert encoded['input_ids'] == ids
    mask = [0] * len(ids)
    for i, message in enumerate(messages):
        if message['role'] == 'assistant':
            prompt = tokenizer.apply_chat_template(
                messages[:i], tokenize=False, add_generation_prompt=True
            )
            assert text.startswith(prompt)
            stop = text.index(end, len(prompt)) + len(end)
            for t, (start, _) in enumerate(encoded['offset_mapping']):
                mask[t] |= len(prompt) <= start < stop
    prompt = tokenizer.apply_chat_template(
        messages[:-1], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    return {'ids': ids, 'mask': ''.join(map(str, mask)), 'prompt': prompt}


def main() -> None:
    from transformers import PreTrainedTokenizerFast

    byte = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(hf_tokenizers.Regex(hf_tokenizers.QWEN_WORDS), 'isolated'),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    lines = pre_tokenizers.Split('\n', 'removed')
    word = pre_tokenizers.Sequence([lines, pre_tokenizers.Metaspace(hf_tokenizers.SPACE)])
    merges = {
        'byte': learn(byte, sorted(pre_tokenizers.ByteLevel.alphabet())),
        'word': learn(word, hf_tokenizers.CHARS),
    }
    merges['word'] = [merge for merge in merges['word'] if 'ë' not in merge]
    texts, golden = hf_tokenizers.CONVERSATION, {}
    files = hf_tokenizers.files(merges)
    for name, (bos, eos, end) in BOS_EOS_END.items():
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(files[name]),
            bos_token=bos,
            eos_token=eos,
            chat_template=TEMPLATES[name],
        )
        space = ' ' if name in ('llama2', 'mistral') else ''  # before all text in these templates
        quoted = f'{texts["question"]}\n\n{space}{texts["attempt"]}'
        sides = ('user', 'assistant', 'user', 'assistant')
        actor = [{'role': s, 'content': t} for s, t in zip(sides, texts.values(), strict=True)]
        critic = [{'role': 'user', 'content': quoted}, {**actor[2], 'role': 'assistant'}]
        golden[name] = {
            'actor': render(tokenizer, actor, end),
            'critic': render(tokenizer, critic, end),
        }
    text = json.dumps({'merges': merges, 'templates': golden}, ensure_ascii=False, indent=None)
    hf_tokenizers.GOLDEN.write_text(text.replace('}, "', '},\n"').replace('], "', '],\n"') + '\n')


if __name__ == '__main__':
    main()
