"""Compiles all programs of an engine in parallel, before it samples, and prints its progress."""

import concurrent.futures
import time
from collections.abc import Callable
from typing import Any

import jax

from elenchus.model.placement import PinnedFunction
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.calls import execute
from elenchus.sampling.engine.request_methods import AnyMethod


class CompileAhead:
    """Compiles what an engine runs for a model and a method, once for each, in some threads."""

    def __init__(self, num_threads: int):
        self._num_threads, self._compiled = num_threads, set()

    def __call__(self, warm_up: Callable[..., None], model: Transformer, method: AnyMethod) -> None:
        """Compiles the programs that `warm_up` calls; with 0 threads, nothing."""
        key = jax.tree.structure(model), method
        if not self._num_threads or key in self._compiled:
            return
        call = SideBySide(self._num_threads)
        warm_up(model, method=method, call=call)
        call.finish()
        self._compiled.add(key)


class SideBySide:
    """A `Call` that lowers programs in this thread and compiles them in others, without running.

    Tracing holds Python's lock, compiling does not. Other functions, such as those that make the
    sampler's weights, run: what they return is an argument of the programs.
    """

    def __init__(self, num_threads: int):
        self._pool = concurrent.futures.ThreadPoolExecutor(num_threads, 'compile')
        self._tasks: list[concurrent.futures.Future] = []
        self._start = time.perf_counter()

    def __call__(self, name: str, function, /, *args, **kwargs) -> Any:
        """Returns the results of a program as shapes, or those of another function."""
        if not isinstance(function, PinnedFunction):
            return execute(name, function, *args, **kwargs)
        compile_lowered, results = function.prepare(*args, **kwargs)
        self._tasks.append(self._pool.submit(compile_lowered))
        return results

    def finish(self) -> None:
        """Waits for all programs with a line of progress; raises the error of one that failed."""
        traced, total = time.perf_counter() - self._start, len(self._tasks)
        with self._pool:
            for count, task in enumerate(concurrent.futures.as_completed(self._tasks), start=1):
                task.result()
                print(f'\r   compiled {count}/{total} programs', end='', flush=True)
        seconds = time.perf_counter() - self._start
        print(f' in {seconds:.1f} s, {traced:.1f} s of them tracing')
