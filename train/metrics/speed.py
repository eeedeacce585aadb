"""Speeds of stages: tokens a second, and shares of what the chips could do at their peaks.

They depend on the machine, so they go to timing.jsonl and to progress lines, never to
metrics.jsonl. On chips without known peaks (a CPU) there are tokens a second only.
"""

import time
from collections.abc import Callable, Iterable

import jax

from elenchus.data.records import Batch
from elenchus.model import config as model_config
from elenchus.model import kv_cache, lora, memory_estimate
from elenchus.model.config import ModelConfig
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.work import Work
from elenchus.train.metrics import profiling, progress
from elenchus.train.planning import machines


def sampling_speed(
    work: Work,
    config: ModelConfig,
    *,
    cache_dtype: kv_cache.CacheDtype,
    tensor: int,
    step_tokens: int = 0,
) -> dict[str, float]:
    """Speeds of some sampling; what is not known is left out. `step_tokens` as in `init_cache`.

    `bandwidth_share` is the time that the decode steps' least traffic takes at the peak bandwidth,
    as a share of all seconds. A step must read a device's weights (split over `tensor` devices, in
    the dtype of activations) and the caches of its slots.
    """
    speeds = {
        'sampled_tokens_per_s': work.tokens_per_s,
        'slot_use': work.slot_use,
        'padded_prefill': work.padded_prefill,
    }
    peaks = machines.peaks_of(jax.devices()[0].device_kind)
    if peaks is not None and work.seconds and work.slot_steps:
        itemsize = memory_estimate.itemsize(config.dtype)
        weights = work.steps * model_config.num_parameters(config) * itemsize / tensor
        mean_length = work.cache_positions / work.slot_steps
        slot = kv_cache.cache_bytes(
            config, batch=1, length=mean_length, dtype=cache_dtype, step_tokens=step_tokens
        )
        caches = work.slot_steps * slot / jax.device_count()
        least_seconds = (weights + caches) / peaks.memory_bytes_per_s
        speeds['bandwidth_share'] = least_seconds / work.seconds
    return {name: value for name, value in speeds.items() if value is not None}


def training_flops_per_token(model: Transformer, *, length: int) -> float:
    """FLOPs of a training step of a model for each token of rows of `length` tokens.

    The backward pass takes twice the forward pass; under adapters, without the gradients of the
    frozen base, once.
    """
    forward = model_config.forward_flops(model.config, tokens=1, length=length / 2)
    return (3 if lora.adaptation_of(model) is None else 2) * forward


class TrainingSpeed:
    """Measures a training loop: tokens, without padding, from one row of metrics to the next.

    The host runs ahead of the devices by at most one logged row, so a rate over several steps is
    theirs.
    """

    def __init__(self, flops_per_token: float, *, clock: Callable[[], float] = time.perf_counter):
        self._flops, self._clock = flops_per_token, clock
        self._tokens, self._start = 0, clock()

    def push(self, batches: Iterable[Batch]) -> None:
        """Adds the batches of a step."""
        self._tokens += sum(int((batch.segments > 0).sum()) for batch in batches)

    def row(self) -> dict[str, float]:
        """Returns the speeds since the last call."""
        now = self._clock()
        rate = self._tokens / max(now - self._start, 1e-9)
        self._tokens, self._start = 0, now
        row = {'tokens_per_s': rate}
        peaks = machines.peaks_of(jax.devices()[0].device_kind)
        if peaks is not None and self._flops:
            row['mfu'] = rate * self._flops / peaks.flops_per_s / jax.device_count()
        return row


class SamplingProgress:
    """Shows the speed of sampling in the progress line of its stage, between its parts too."""

    def __init__(self, work: Callable[[], Work]):
        self._work, self._before = work, work()
        self._shown = time.monotonic()
        self.trace: profiling.StepTrace | None = None  # of the stage that is running

    def __call__(self) -> None:
        """Called after every chunk of decoding; shows the speed since the line before."""
        if self.trace is not None:
            self.trace.tick()
        now = time.monotonic()
        if now - self._shown < progress.SHOW_INTERVAL:
            return
        work = self._work()
        done, self._before, self._shown = work - self._before, work, now
        fields = {
            'sampled': work.sampled,
            'tokens/s': done.tokens_per_s,
            'slots': done.slot_use,
            'padded prefill': done.padded_prefill,
        }
        progress.show(**{name: value for name, value in fields.items() if value is not None})
