"""Losses and gradients of TRL for fixed tensors; writes trl_golden.npz in this folder.

    python -m tests.golden.trl_golden        (needs the extra `peers`)

The models are stubs that return log-probabilities of fixed logits; the losses and their averages
are computed by TRL's code.
"""

import collections
import contextlib
import pathlib
import types

import numpy as np

GOLDEN = pathlib.Path(__file__).with_name('trl_golden.npz')
PROMPT, COMPLETION, VOCAB = 2, 5, 5
MAX_LENGTH = 6
BETA = 0.4
GAMMA, NLL, DESIRABLE, UNDESIRABLE = 0.3, 0.7, 1.2, 0.6
LENGTHS = (5, 3, 4, 1)
GROUP = {
    'grpo': {'loss_type': 'grpo', 'beta': 0.0, 'low': 0.2, 'high': 0.2, 'level': 'token'},
    'grpo-k3': {'loss_type': 'grpo', 'beta': 0.3, 'low': 0.2, 'high': 0.2, 'level': 'token'},
    'dr_grpo': {'loss_type': 'dr_grpo', 'beta': 0.0, 'low': 0.2, 'high': 0.2, 'level': 'token'},
    'dapo': {'loss_type': 'dapo', 'beta': 0.0, 'low': 0.2, 'high': 0.28, 'level': 'token'},
    'gspo': {'loss_type': 'grpo', 'beta': 0.0, 'low': 0.05, 'high': 0.08, 'level': 'sequence'},
    'cispo': {'loss_type': 'cispo', 'beta': 0.0, 'low': 1.0, 'high': 1.3, 'level': 'token'},
    'corrected': {'loss_type': 'grpo', 'beta': 0.0, 'low': 0.2, 'high': 0.2, 'level': 'token'},
}


def inputs() -> dict[str, np.ndarray]:
    """Rows of a prompt and a completion; in pairs, the first half of the rows is preferred."""
    rng = np.random.default_rng(11)
    rows, length = len(LENGTHS), PROMPT + COMPLETION
    mask = (np.arange(length) >= PROMPT) & (
        np.arange(length) < PROMPT + np.asarray(LENGTHS)[:, None]
    )
    logits = rng.normal(size=(rows, length, VOCAB)).astype(np.float32)
    tokens = rng.integers(0, VOCAB, (rows, length))
    shifted = logits[:, :-1] - np.log(np.exp(logits[:, :-1]).sum(-1, keepdims=True))
    logprobs = np.zeros((rows, length), np.float32)
    logprobs[:, 1:] = np.take_along_axis(shifted, tokens[:, 1:, None], -1)[..., 0]
    near = lambda spread: (logprobs + spread * rng.normal(size=logprobs.shape)).astype(np.float32)  # noqa: E731
    return {
        'logits': logits,  # logits[:, t] predict tokens[:, t + 1]
        'tokens': tokens,
        'mask': mask.astype(np.float32),
        'old': near(0.4),
        'ref': near(0.5),
        'trust': rng.uniform(0.3, 2.0, logprobs.shape).astype(np.float32),
        'advantages': rng.normal(size=rows).astype(np.float32),
    }


class _Accelerator(types.SimpleNamespace):
    """One process: nothing to gather."""

    num_processes = 1
    device = 'cpu'

    def autocast(self):
        return contextlib.nullcontext()

    def gather(self, x):
        return x

    gather_for_metrics = gather

    def reduce(self, x, reduction):
        return x


def _model(logits):
    """Returns a stub of TRL's fused causal model: log-probabilities and entropies of labels."""
    import torch
    from trl.trainer import utils

    def forward(input_ids, attention_mask, labels, **_):
        logprobs = utils.selective_log_softmax(logits[:, :-1], input_ids[:, 1:])
        return types.SimpleNamespace(
            log_probs=torch.where(labels[:, 1:] == -100, 0.0, logprobs),
            entropy=utils.entropy_from_logits(logits[:, :-1]).detach(),
            mean_logits=logits[:, :-1].mean(-1).detach(),
            is_top1=torch.zeros_like(logprobs, dtype=torch.bool),
        )

    return forward


def _trainer(**fields):
    fixed = {
        'accelerator': _Accelerator(),
        'model': types.SimpleNamespace(training=False),
        '_metrics': collections.defaultdict(lambda: collections.defaultdict(list)),
        'aux_loss_enabled': False,
        'top_entropy_quantile': 1.0,
        'off_policy_mask_threshold': None,
        'max_completion_length': MAX_LENGTH,
        '_entropy_bonus_enabled': False,
        'vllm_importance_sampling_correction': True,
        'args': types.SimpleNamespace(use_bias_correction_kl=False, delta=None),
        '_total_train_tokens': 0,
    }
    return types.SimpleNamespace(**fixed | fields)


def _with_gradient(tensors, compute):
    import torch

    logits = torch.tensor(tensors['logits'], requires_grad=True)
    loss = compute(logits)
    loss.backward()
    return np.float32(loss.item()), logits.grad.numpy()


def _rows(tensors) -> dict:
    """Returns a batch in TRL's layout."""
    import torch

    tokens, mask = torch.tensor(tensors['tokens']), torch.tensor(tensors['mask'])
    done = slice(PROMPT, None)
    return {
        'prompt_ids': tokens[:, :PROMPT],
        'prompt_mask': torch.ones_like(tokens[:, :PROMPT]),
        'completion_ids': tokens[:, done],
        'completion_mask': mask[:, done].long(),
        'old_per_token_logps': torch.tensor(tensors['old'][:, done]),
        'ref_per_token_logps': torch.tensor(tensors['ref'][:, done]),
        'old_logps': (torch.tensor(tensors['old']) * mask).sum(1),
        'importance_sampling_ratio': torch.tensor(tensors['trust'][:, done]),
        'advantages': torch.tensor(tensors['advantages']),
        'num_items_in_batch': mask.sum(),
    }


def group_loss(name: str, tensors):
    """(loss, gradient of the logits) of GRPOTrainer."""
    from trl import GRPOTrainer

    o = GROUP[name]
    trainer = _trainer(
        loss_type=o['loss_type'],
        beta=o['beta'],
        epsilon_low=o['low'],
        epsilon_high=o['high'],
        importance_sampling_level=o['level'],
        use_vllm=name == 'corrected',
    )
    score = GRPOTrainer._get_per_token_logps_and_entropies.__wrapped__  # without its profiler
    trainer._get_per_token_logps_and_entropies = types.MethodType(score, trainer)
    return _with_gradient(
        tensors, lambda logits: GRPOTrainer._compute_loss(trainer, _model(logits), _rows(tensors))
    )


def rloo_loss(tensors):
    """(loss, gradient of the logits) of RLOOTrainer."""
    from trl import GRPOTrainer, RLOOTrainer

    trainer = _trainer(epsilon_low=0.2, epsilon_high=0.2)
    score = GRPOTrainer._get_per_token_logps_and_entropies.__wrapped__  # without its profiler
    trainer._get_per_token_logps_and_entropies = types.MethodType(score, trainer)
    return _with_gradient(
        tensors, lambda logits: RLOOTrainer._compute_loss(trainer, _model(logits), _rows(tensors))
    )


def dpo_loss(tensors, loss_types=('sigmoid',)):
    """(loss, gradient of the logits) of DPOTrainer; preferred rows come first."""
    import torch
    from trl import DPOTrainer

    tokens, mask = torch.tensor(tensors['tokens']), torch.tensor(tensors['mask'])
    reference = (torch.tensor(tensors['ref']) * mask).sum(1)
    half = len(reference) // 2
    trainer = _trainer(
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type='reverse_kl',
        loss_types=loss_types,
        loss_weights=[1.0, NLL][: len(loss_types)],
        beta=BETA,
        label_smoothing=0.0,
        use_weighting=False,
    )
    batch = {
        'input_ids': tokens,
        'attention_mask': torch.ones_like(tokens),
        'completion_mask': mask.long(),
        'ref_chosen_logps': reference[:half],
        'ref_rejected_logps': reference[half:],
    }
    return _with_gradient(
        tensors, lambda logits: DPOTrainer._compute_loss(trainer, _model(logits), batch, False)
    )


def kto_loss(tensors):
    """(loss, gradient of the logits) of KTOTrainer; z0 is that of the old log-probabilities."""
    import torch
    from trl import KTOTrainer

    tokens, mask = torch.tensor(tensors['tokens']), torch.tensor(tensors['mask'])
    reference = (torch.tensor(tensors['ref']) * mask).sum(1)
    other = (torch.tensor(tensors['old']) * mask).sum(1)
    trainer = _trainer(
        precompute_ref_logps=True,
        calculate_KL=True,
        loss_type='kto',
        beta=BETA,
        desirable_weight=DESIRABLE,
        undesirable_weight=UNDESIRABLE,
        _tp_size=1,
        _compute_kl_logps=lambda model, batch: other,
    )
    batch = {
        'input_ids': tokens,
        'attention_mask': torch.ones_like(tokens),
        'completion_mask': mask.long(),
        'label': torch.arange(len(tokens)) < len(tokens) // 2,
        'ref_logps': reference,
        'ref_KL_logps': reference,
    }
    return _with_gradient(
        tensors, lambda logits: KTOTrainer._compute_loss(trainer, _model(logits), batch, False)
    )


def reference_free_loss(tensors, trainer_class, **fields):
    """(loss, gradient of the logits) of ORPOTrainer or CPOTrainer, on completion tokens only.

    ORPOTrainer's likelihood is that of all tokens which the attention mask has.
    """
    import torch

    tokens, mask = torch.tensor(tensors['tokens']), torch.tensor(tensors['mask']).long()
    half = len(tokens) // 2
    inputs = {
        'concatenated_input_ids': tokens,
        'concatenated_attention_mask': mask,
        'concatenated_labels': torch.where(mask == 1, tokens, -100),
    }
    trainer = _trainer(
        is_encoder_decoder=False,
        pad_token_id=0,
        padding_value=0,
        concatenated_inputs=lambda *_, **__: inputs,
        get_batch_logps=trainer_class.get_batch_logps,
        **fields,
    )
    for name in ('concatenated_forward', 'odds_ratio_loss', 'cpo_loss'):
        if hasattr(trainer_class, name):
            setattr(trainer, name, types.MethodType(getattr(trainer_class, name), trainer))

    def loss(logits):
        batch = {'chosen_labels': inputs['concatenated_labels'][:half]}
        model = lambda *_, **__: types.SimpleNamespace(logits=logits)  # noqa: E731
        return trainer_class.get_batch_loss_metrics(trainer, model, batch)[0]

    return _with_gradient(tensors, loss)


def pair_losses(tensors):
    """Name -> (loss, gradient of the logits) of every loss of pairs; preferred rows come first."""
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    simpo = {'loss_type': 'simpo', 'beta': BETA, 'simpo_gamma': GAMMA, 'alpha': 0.0}
    simpo |= {'label_smoothing': 0.0}
    return {
        'dpo': dpo_loss(tensors),
        'dpo-nll': dpo_loss(tensors, ('sigmoid', 'sft')),
        'ipo': dpo_loss(tensors, ('ipo',)),
        'kto': kto_loss(tensors),
        'orpo': reference_free_loss(tensors, ORPOTrainer, beta=BETA),
        'simpo': reference_free_loss(tensors, CPOTrainer, cpo_alpha=0.0, **simpo),
        'simpo-nll': reference_free_loss(tensors, CPOTrainer, cpo_alpha=NLL, **simpo),
    }


def sft_loss(tensors):
    """(loss, gradient of the logits) of the models of SFTTrainer."""
    import torch
    from transformers.loss import loss_utils

    labels = torch.tensor(np.where(tensors['mask'] > 0, tensors['tokens'], -100))
    return _with_gradient(
        tensors, lambda logits: loss_utils.ForCausalLMLoss(logits, labels, vocab_size=VOCAB)
    )


def all_losses() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Method -> (loss, gradient [B, T, V] of the logits)."""
    tensors = inputs()
    losses = {name: group_loss(name, tensors) for name in GROUP}
    return losses | {'rloo': rloo_loss(tensors), 'sft': sft_loss(tensors), **pair_losses(tensors)}


if __name__ == '__main__':
    flat = {}
    for method, (value, grads) in all_losses().items():
        flat |= {f'{method}/loss': value, f'{method}/grads': grads}
    np.savez_compressed(GOLDEN, **inputs(), **flat)
    print(GOLDEN, GOLDEN.stat().st_size, 'bytes')
