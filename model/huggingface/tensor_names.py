"""Names of tensors in Hugging Face files: parameter -> (name, einops pattern tensor -> parameter).

`{}` in a name is the layer, and a second one the expert. PyTorch stores matrices as [out, in],
ours are [in, out].
"""

_LAYER = 'model.layers.{}.'

WEIGHTS = {
    'embedding': ('model.embed_tokens.weight', 'V D -> V D'),
    'final_norm.scale': ('model.norm.weight', 'D -> D'),
    'head': ('lm_head.weight', 'V D -> D V'),
    'blocks.attention_norm.scale': (f'{_LAYER}input_layernorm.weight', 'D -> D'),
    'blocks.attention.query': (f'{_LAYER}self_attn.q_proj.weight', '(N H) D -> D N H'),
    'blocks.attention.key': (f'{_LAYER}self_attn.k_proj.weight', '(K H) D -> D K H'),
    'blocks.attention.value': (f'{_LAYER}self_attn.v_proj.weight', '(K H) D -> D K H'),
    'blocks.attention.out': (f'{_LAYER}self_attn.o_proj.weight', 'D (N H) -> N H D'),
    'blocks.mlp_norm.scale': (f'{_LAYER}post_attention_layernorm.weight', 'D -> D'),
    'blocks.mlp.gate': (f'{_LAYER}mlp.gate_proj.weight', 'F D -> D F'),
    'blocks.mlp.up': (f'{_LAYER}mlp.up_proj.weight', 'F D -> D F'),
    'blocks.mlp.down': (f'{_LAYER}mlp.down_proj.weight', 'D F -> F D'),
}
"""Tensors of Llama and Mistral, which all families have."""

QKV_BIASES = {
    'blocks.attention.query_bias': (f'{_LAYER}self_attn.q_proj.bias', '(N H) -> N H'),
    'blocks.attention.key_bias': (f'{_LAYER}self_attn.k_proj.bias', '(K H) -> K H'),
    'blocks.attention.value_bias': (f'{_LAYER}self_attn.v_proj.bias', '(K H) -> K H'),
}
"""Biases of Qwen 2 and 2.5."""

QK_NORMS = {
    'blocks.attention.query_norm.scale': (f'{_LAYER}self_attn.q_norm.weight', 'H -> H'),
    'blocks.attention.key_norm.scale': (f'{_LAYER}self_attn.k_norm.weight', 'H -> H'),
}
"""Norms on queries and keys of Qwen 3 and Gemma 3."""


def experts(block: str, *, gate: str, up: str, down: str) -> dict[str, tuple[str, str]]:
    """Returns WEIGHTS with a router and experts in the place of the MLP.

    `block` is the name of both in a layer; the others are names of an expert's matrices.
    """
    shared = {name: entry for name, entry in WEIGHTS.items() if not name.startswith('blocks.mlp.')}
    expert = f'{_LAYER}{block}.experts.{{}}.'
    return shared | {
        'blocks.experts.router': (f'{_LAYER}{block}.gate.weight', 'E D -> D E'),
        'blocks.experts.gate': (f'{expert}{gate}.weight', 'F D -> D F'),
        'blocks.experts.up': (f'{expert}{up}.weight', 'F D -> D F'),
        'blocks.experts.down': (f'{expert}{down}.weight', 'D F -> F D'),
    }


# post_attention_layernorm is the norm *after* attention here, but the norm before the MLP in
# WEIGHTS, so these entries must replace that one.
POST_NORMS = {
    'blocks.attention_post_norm.scale': (f'{_LAYER}post_attention_layernorm.weight', 'D -> D'),
    'blocks.mlp_norm.scale': (f'{_LAYER}pre_feedforward_layernorm.weight', 'D -> D'),
    'blocks.mlp_post_norm.scale': (f'{_LAYER}post_feedforward_layernorm.weight', 'D -> D'),
}
"""Norms of Gemma around attention and MLP."""
