"""Saved models of a run: whole ones, and adapters on a frozen base that is held once."""

import os

import jax

from elenchus.data.files import atomic
from elenchus.model import lora, quantization
from elenchus.model.config import ModelConfig
from elenchus.model.transformer import Transformer
from elenchus.train.checkpoints import checkpoint


class Models:
    """Loads and saves; bases stay in memory, shared by all that is on them, until released."""

    def __init__(
        self,
        numerics: ModelConfig,
        mesh: jax.sharding.Mesh,
        *,
        tokenizer_fingerprint: str,
        quantize: quantization.Quantization,
    ):
        self._numerics, self._mesh = numerics, mesh
        self._fingerprint, self._quantize = tokenizer_fingerprint, quantize
        self._bases: dict[tuple[str, str], tuple[Transformer, int]] = {}

    def load(self, folder: str | os.PathLike) -> Transformer:
        """A saved model, of any size; adapters come on the one frozen copy of their base.

        Raises ValueError where the base is no longer the one that they were trained on.
        """
        config = checkpoint.saved_config(folder, self._numerics)
        options = {'tokenizer_fingerprint': self._fingerprint}
        how = checkpoint.saved_adaptation(folder)
        held = self._bases.get((_key(folder), 'none'))
        if how is None and held is not None:
            return held[0]
        if how is None:
            return checkpoint.load_model(folder, config, mesh=self._mesh, **options)
        checkpoint.check_model(folder, config, **options)
        base, fingerprint = self._base(how.folder, how.quantize)
        if fingerprint != how.fingerprint:
            raise ValueError(
                f'{folder} belongs to a base {how.folder} of fingerprint {how.fingerprint}; what '
                f'is there now has {fingerprint}'
            )
        return checkpoint.load_adapters(folder, base, how)

    def load_to_train(
        self, folder: str | os.PathLike, settings: lora.LoraSettings, *, seed: int
    ) -> Transformer:
        """A saved model as training starts from it: whole, or frozen under adapters.

        They are fresh, or those that it has. Raises ValueError where these are of other settings.
        """
        how = checkpoint.saved_adaptation(folder)
        if how is not None and how.settings != settings:
            raise ValueError(
                f'{folder} holds adapters of {how.settings}, the config gives {settings}: take '
                'the former, or export a whole model (scripts/merge.py)'
            )
        if how is not None or not settings.rank:
            return self.load(folder)
        base, fingerprint = self._base(folder, self._quantize)
        how = lora.Adaptation(settings, _key(folder), fingerprint, self._quantize)
        adapters = lora.init_adapters(base.config, how, jax.random.key(seed))
        return lora.attach(base, checkpoint.place(adapters, self._mesh))

    def save(self, folder: os.PathLike, model: Transformer) -> None:
        checkpoint.save_model(folder, model, tokenizer_fingerprint=self._fingerprint)

    def release(self) -> None:
        """Lets go of the bases; what is in use elsewhere lives on."""
        self._bases.clear()

    def _base(self, folder: str | os.PathLike, quantize: quantization.Quantization):
        """A base, held as asked, and its fingerprint; read once."""
        key = _key(folder), quantize
        if key not in self._bases:
            base = self.load(folder)
            self._bases[key] = quantization.quantize(base, quantize), checkpoint.fingerprint(base)
        return self._bases[key]


def _key(folder: str | os.PathLike) -> str:
    return os.fspath(atomic.absolute(folder))
