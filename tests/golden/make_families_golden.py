"""Writes families_golden.*: what `transformers` makes of the models of tests/families.py.

    python -m tests.model.make_families_golden

Needs the extra `peers`. The JSON file holds each model's config.json as `save_pretrained` writes
it, the names and shapes of its tensors, and greedy continuations; the other holds float32 logits
of every third position.
"""

import json
import pathlib
import re

import numpy as np
import torch
import transformers

from tests.support import hf_models

FOLDER = pathlib.Path(__file__).parent


def make_peer(described: dict) -> transformers.PreTrainedModel:
    """The model of a config.json, with the weights that its names stand for."""
    kind = described['model_type']
    values = {name: value for name, value in described.items() if name != 'model_type'}
    config = transformers.AutoConfig.for_model(kind, **values, eos_token_id=None)
    config._attn_implementation = 'eager'
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    tensors = hf_models.weights(shapes_of(model), model_type=kind)
    with torch.no_grad():
        for name, tensor in parameters_of(model).items():
            tensor.copy_(torch.from_numpy(tensors[name]))
    return model


def load(folder: pathlib.Path) -> transformers.PreTrainedModel:
    """The model in a folder, in the dtype that its config.json says."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation='eager', dtype='auto', local_files_only=True
    ).eval()


def parameters_of(model) -> dict[str, torch.Tensor]:
    """Parameters by the names that files have; tied ones once."""
    return dict(model.named_parameters())


def shapes_of(model) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in parameters_of(model).items()}


def logits_of(model, tokens: np.ndarray) -> np.ndarray:
    """Logits [B, T, V]."""
    with torch.no_grad():
        return model(torch.from_numpy(tokens)).logits.float().numpy()


def continued(model, tokens: np.ndarray, length: int) -> np.ndarray:
    """Greedy continuations [B, length] of prompts [B, T]."""
    prompts = torch.from_numpy(tokens)
    made = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=False,
        max_new_tokens=length,
        pad_token_id=0,
    )
    return made[:, tokens.shape[1] :].numpy()


def one_layer(shapes) -> dict[str, list[int]]:
    """Shapes with the number of the layer left open."""
    return {re.sub(r'layers\.\d+\.', 'layers.{}.', name): list(s) for name, s in shapes.items()}


def main() -> None:
    tokens, logits, told = hf_models.tokens(), {}, {}
    for name, described in hf_models.CASES.items():
        model = make_peer(described)
        logits[name] = logits_of(model, tokens)[:, hf_models.KEPT]
        told[name] = {
            'config': json.loads(model.config.to_json_string()),
            'tensors': one_layer(shapes_of(model)),
        }
        if name in hf_models.GENERATING:
            prompts = tokens[:, : hf_models.PROMPT]
            told[name]['continued'] = continued(model, prompts, hf_models.GENERATED).tolist()
    np.savez_compressed(FOLDER / 'families_golden.npz', **logits)
    lines = (f'{json.dumps(name)}: {json.dumps(value)}' for name, value in told.items())
    (FOLDER / 'families_golden.json').write_text('{\n' + ',\n'.join(lines) + '\n}\n')


if __name__ == '__main__':
    main()
