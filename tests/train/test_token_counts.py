"""Trained tokens are those of the loss; padding is counted apart; both survive a restart."""

import dataclasses

import jax
import numpy as np
import pytest

from elenchus.data.batching import packing
from elenchus.train import preemption
from elenchus.train.run.directory import RunDirectory
from elenchus.train.sft import FitSettings
from elenchus.train.stages import sft
from tests.support import process_worker, tiny_model

EXAMPLES = tiny_model.random_examples(0, (3, 5, 9, 14, 7, 11, 4, 8))


def fit(folder, *, num_steps, every=1):
    loop = dataclasses.replace(process_worker.LOOP, rows=4, length=16, checkpoint_every=every)
    stage = RunDirectory(folder, '{}', ('fit',), part_size=1).stage('fit')
    settings = FitSettings(num_steps, process_worker.ADAM, 'none', 'same')
    with jax.set_mesh(tiny_model.one_device()):
        model = tiny_model.make_model(tiny_model.FLAT)
        return sft.sft(model, EXAMPLES, settings=settings, loop=loop, seed=0, stage=stage)[1]


def test_the_counts_of_a_batch_are_its_loss_tokens_and_its_empty_places():
    batch = packing.pad(EXAMPLES, length=16)
    counts = packing.token_counts(batch)
    trained = sum(int((e.loss_mask > 0).sum()) for e in EXAMPLES)
    assert counts['tokens_trained'] == trained < sum(len(e.tokens) for e in EXAMPLES)
    assert counts['tokens_padding'] == 16 * 8 - sum(len(e.tokens) for e in EXAMPLES)


@pytest.mark.slow
def test_totals_of_a_fit_are_sums_over_its_batches_also_after_a_restart(tmp_path, monkeypatch):
    batches = []
    to_device = sft.to_device
    monkeypatch.setattr(sft, 'to_device', lambda batch: batches.append(batch) or to_device(batch))
    whole = fit(tmp_path / 'whole', num_steps=4)
    assert len(batches) == 4
    assert whole['tokens_trained'] == sum(int((b.loss_mask > 0).sum()) for b in batches)
    assert whole['tokens_padding'] == sum(int((b.segments == 0).sum()) for b in batches)
    assert whole['tokens_trained'] + whole['tokens_padding'] < 4 * 4 * 16

    answers = iter([False, True])
    with monkeypatch.context() as patch:
        patch.setattr(preemption.requests, 'is_requested', lambda: next(answers))
        with pytest.raises(preemption.Preempted):
            fit(tmp_path / 'parted', num_steps=4)
    resumed = fit(tmp_path / 'parted', num_steps=4)
    assert {n: resumed[n] for n in ('tokens_trained', 'tokens_padding')} == {
        n: whole[n] for n in ('tokens_trained', 'tokens_padding')
    }
    assert np.isfinite(resumed['final_loss'])
