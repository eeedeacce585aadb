"""An engine that keeps keys and values of what it sampled, for prompts that begin with it."""

from collections.abc import Callable, Sequence

from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.generator import Generator
from elenchus.sampling.engine.prefix_cache import PrefixCache
from elenchus.sampling.engine.requests import Completion, Request
from elenchus.sampling.engine.sampling_methods import Method


class PrefixCachedEngine:
    """An engine with one prefix cache per model that it samples from; implements Generator.

    The caches live as long as this object. A sample's last digits may depend on which prefix it
    started from, so a new object per part of a stage makes the part reproducible on its own.
    """

    def __init__(self, engine):
        self._engine = engine
        # By id, as models are not hashable. Keeping the model keeps its id from being reused.
        self._caches: dict[int, tuple[Transformer, PrefixCache]] = {}

    @property
    def tokens(self) -> int:
        """Tokens of all completions of the underlying engine so far."""
        return self._engine.tokens

    @property
    def steps(self) -> int:
        """Forward passes of all completions of the underlying engine so far."""
        return self._engine.steps

    def generate(
        self,
        model: Transformer,
        requests: Sequence[Request],
        *,
        method: Method,
        seed: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        """Samples like Engine.generate, with the prefix cache of this model."""
        if id(model) not in self._caches:
            self._caches[id(model)] = (model, self._engine.init_prefix_cache(model))
        return self._engine.generate(
            model,
            requests,
            method=method,
            seed=seed,
            on_completion=on_completion,
            prefix_cache=self._caches[id(model)][1],
        )

    def with_prefix_cache(self) -> Generator:
        """The same engine with new, empty caches."""
        return self._engine.with_prefix_cache()
