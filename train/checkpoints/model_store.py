"""Loads and saves the models of a run; a base model that adapters share is in memory once."""

import dataclasses
import os
from collections.abc import Mapping

import jax

from elenchus.data.files import atomic
from elenchus.model import head_layout, lora, quantization
from elenchus.model.config import ModelConfig
from elenchus.model.placement import Placement
from elenchus.model.transformer import Transformer
from elenchus.train.checkpoints import saved_models
from elenchus.train.early_end import early_end


class ModelStore:
    """Loads and saves models; frozen bases of adapters are cached until `release`."""

    def __init__(
        self,
        numerics: ModelConfig,
        mesh: jax.sharding.Mesh,
        *,
        tokenizer_fingerprint: str,
        quantize: quantization.Quantization,
        chat: Mapping[str, str] | None = None,
    ):
        """`chat` describes the run's chat template; see `saved_models.save_model`."""
        self._chat = chat
        self._numerics, self._mesh = numerics, mesh
        self._fingerprint, self._quantize = tokenizer_fingerprint, quantize
        self._bases: dict[tuple[str, str], tuple[Transformer, int]] = {}

    def load(self, folder: str | os.PathLike) -> Transformer:
        """Loads a saved model of any size; adapters are attached to the cached copy of their base.

        A vocabulary with more padding than the run's loses what is beyond.

        Raises ValueError if the base is not the one that the adapters were trained on.
        """
        return self._with_vocabulary(self._load(folder))

    def _load(self, folder: str | os.PathLike) -> Transformer:
        """Loads a saved model as it is."""
        config = saved_models.saved_config(folder, self._numerics)
        options = {'tokenizer_fingerprint': self._fingerprint}
        adaptation = saved_models.saved_adaptation(folder)
        cached = self._bases.get((_key(folder), 'none'))
        if adaptation is None and cached is not None:
            return cached[0]
        if adaptation is None:
            return saved_models.load_model(folder, config, mesh=self._mesh, **options)
        saved_models.check_model(folder, config, **options)
        base, fingerprint = self._load_base(adaptation.folder, adaptation.quantize)
        if fingerprint != adaptation.fingerprint:
            raise ValueError(
                f'{folder} belongs to a base {adaptation.folder} with fingerprint '
                f'{adaptation.fingerprint}; the model there now has {fingerprint}'
            )
        return saved_models.load_adapters(folder, base, adaptation)

    def load_to_train(
        self, folder: str | os.PathLike, settings: lora.LoraSettings, *, seed: int
    ) -> Transformer:
        """Loads a saved model to be trained: whole (rank 0), or frozen under adapters.

        A folder of adapters continues with these; otherwise new ones are initialised from `seed`.
        Raises ValueError if saved adapters have other settings.
        """
        adaptation = saved_models.saved_adaptation(folder)
        if adaptation is not None and adaptation.settings != settings:
            raise ValueError(
                f'{folder} holds adapters of {adaptation.settings}, but the config gives '
                f'{settings}: use the former, or export a whole model (scripts/merge.py)'
            )
        if adaptation is not None or not settings.rank:
            return self.load(folder)
        base, fingerprint = self._load_base(folder, self._quantize)
        adaptation = lora.Adaptation(settings, _key(folder), fingerprint, self._quantize)
        adapters = lora.init_adapters(base.config, adaptation, jax.random.key(seed))
        return self._with_vocabulary(lora.attach(base, Placement(self._mesh).place(adapters)))

    def save(self, folder: os.PathLike, model: Transformer) -> None:
        """Writes a model with the run's tokenizer fingerprint; then no step counts as unsaved."""
        saved_models.save_model(
            folder, model, tokenizer_fingerprint=self._fingerprint, chat=self._chat
        )
        early_end.has_steps = False

    def release(self) -> None:
        """Empties the cache of bases; a base that a loaded model still uses stays in memory."""
        self._bases.clear()

    def _load_base(self, folder: str | os.PathLike, quantize: quantization.Quantization):
        """Returns (base, quantised as given; fingerprint before quantisation), from the cache."""
        key = _key(folder), quantize
        if key not in self._bases:
            base = self._load(folder)
            self._bases[key] = quantization.quantize(base, quantize), saved_models.fingerprint(base)
        return self._bases[key]

    def _with_vocabulary(self, model: Transformer) -> Transformer:
        """Cuts off the ids of a model beyond the run's vocabulary, which are never tokens."""
        size = self._numerics.vocab_size
        if model.config.vocab_size == size:
            return model
        config = dataclasses.replace(model.config, vocab_size=size)
        model = head_layout.with_config(model, config)
        model.embedding = jax.tree.map(lambda table: table[:size], model.embedding)
        if hasattr(model, 'head'):
            model.head = jax.tree.map(lambda head: head[:, :size], model.head)
        return Placement(self._mesh).place(model)


def _key(folder: str | os.PathLike) -> str:
    return os.fspath(atomic.absolute(folder))
