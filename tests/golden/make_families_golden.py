"""Writes families_golden.*: results of `transformers` for the models of tests/support/hf_models.py.

    python -m tests.golden.make_families_golden     (needs the extra `peers`)

The JSON file has, for each model, its config.json as `save_pretrained` writes it, names and shapes
of its tensors, and greedy continuations. The other file has float32 logits of every third position.
"""

import json
import pathlib
import re
import tempfile

import numpy as np
import torch
import transformers
from transformers import core_model_loading

from tests.support import hf_models

FOLDER = pathlib.Path(__file__).parent


def make_peer(hf_config: dict) -> transformers.PreTrainedModel:
    """Returns the model of a config.json, with the weights of `hf_models.weights`."""
    kind = hf_config['model_type']
    values = {name: value for name, value in hf_config.items() if name != 'model_type'}
    config = transformers.AutoConfig.for_model(kind, **values, eos_token_id=None)
    config._attn_implementation = 'eager'
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    shapes = shapes_of(model)
    if any('.experts.' in name for name in shapes):
        # In memory, their experts are one tensor; in files, each has its own.
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / kind
            hf_models.write(path, json.loads(config.to_json_string()), shapes)
            return load(path)
    tensors = hf_models.weights(shapes, model_type=kind)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.copy_(torch.from_numpy(tensors[name]))
    return model


def load(folder: pathlib.Path) -> transformers.PreTrainedModel:
    """Loads the model in a folder, in the dtype of its config.json."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation='eager', dtype='auto', local_files_only=True
    ).eval()


def parameters_of(model) -> dict[str, torch.Tensor]:
    """Parameters by their names in files; tied ones appear once."""
    return core_model_loading.revert_weight_conversion(model, dict(model.named_parameters()))


def shapes_of(model) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in parameters_of(model).items()}


def logits_of(model, tokens: np.ndarray) -> np.ndarray:
    """Logits [B, T, V]."""
    with torch.no_grad():
        return model(torch.from_numpy(tokens)).logits.float().numpy()


def generate_greedily(model, tokens: np.ndarray, length: int) -> np.ndarray:
    """Returns greedy continuations [B, length] of prompts [B, T]."""
    prompts = torch.from_numpy(tokens)
    sequences = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=False,
        max_new_tokens=length,
        pad_token_id=0,
    )
    return sequences[:, tokens.shape[1] :].numpy()


def one_layer(shapes) -> dict[str, list[int]]:
    """Shapes by name, with {} for the number of the layer."""
    return {re.sub(r'layers\.\d+\.', 'layers.{}.', name): list(s) for name, s in shapes.items()}


def main() -> None:
    tokens, logits, golden = hf_models.tokens(), {}, {}
    for name, hf_config in hf_models.CASES.items():
        model = make_peer(hf_config)
        logits[name] = logits_of(model, tokens)[:, hf_models.KEPT]
        golden[name] = {
            'config': json.loads(model.config.to_json_string()),
            'tensors': one_layer(shapes_of(model)),
        }
        if name in hf_models.GENERATING:
            prompts = tokens[:, : hf_models.PROMPT]
            golden[name]['continued'] = generate_greedily(
                model, prompts, hf_models.GENERATED
            ).tolist()
    np.savez_compressed(FOLDER / 'families_golden.npz', **logits)
    lines = (f'{json.dumps(name)}: {json.dumps(value)}' for name, value in golden.items())
    (FOLDER / 'families_golden.json').write_text('{\n' + ',\n'.join(lines) + '\n}\n')


if __name__ == '__main__':
    main()
