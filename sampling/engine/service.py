"""Service: samples requests that may come at any time, from one model and seed.

    service = engine.serve(model, method=method, seed=0)
    ticket = service.submit(Request(7, prompt, max_tokens=64))
    while not service.is_idle:
        service.step()
        for done in service.poll():  # what has ended since the last poll
            show(done.request, done.completion)

A chunk of decoding runs between two steps: the devices decode while the host makes completions of
the requests that ended in the chunk before, and while the caller works. The samples of a request do
not depend on other requests, because its noise is a function of (seed, request id, position).
`Engine.generate` submits all its requests and steps until they are done. Requests may have methods
of their own (request_methods.py). Only one thread at a time may call a service.
"""

import collections
import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from elenchus.model.transformer import Transformer
from elenchus.sampling.engine import decode
from elenchus.sampling.engine import weights as weights_lib
from elenchus.sampling.engine.prefix_cache import PrefixCache
from elenchus.sampling.engine.refill import Refill
from elenchus.sampling.engine.request_methods import AnyMethod, check_method
from elenchus.sampling.engine.requests import Completion, Request, check_requests

if TYPE_CHECKING:
    from elenchus.sampling.engine.engine import Engine


@dataclasses.dataclass
class Ticket:
    """A request that was submitted, and its completion once there is one."""

    request: Request
    completion: Completion | None = None
    error: FloatingPointError | None = None  # why it never has one: its logits were not finite


class Finished(NamedTuple):
    """Requests that have left their slots; what they sampled may be on its way to the host."""

    entries: list[list[tuple[int, Request]]]  # of each shard: (slot, request)
    arrays: tuple[jax.Array, ...]  # decode.read_slots of these slots
    position: np.ndarray  # of every slot


class Service:
    """Requests of one model and seed in the slots of an engine.

    It holds a cache of all slots while it lives. An engine may serve several by turns; its counters
    add up what all of them do. (It is the part of an Engine that has a state.)
    """

    def __init__(
        self,
        engine: 'Engine',
        model: Transformer,
        *,
        method: AnyMethod,
        seed: int,
        prefix_cache: PrefixCache | None = None,
    ):
        """Places the weights. Raises ValueError if the seed is not in [0, 2 ** 32)."""
        check_requests(engine.settings, (), seed)
        engine.compile_ahead(engine.warm_up, model, method)
        self._engine, self._prefix_cache = engine, prefix_cache
        self._method, self._seed = method, seed
        self._here, self._start = engine._placement(), time.perf_counter()
        with self._here.in_force():
            self._weights = weights_lib.place_weights(model, engine.settings, self._here)
            config = self._weights.prefill.config
            self._state = decode.init_state(config, **engine.settings.slot_shapes)
        self._refill = Refill(engine.settings, engine._shards, ())
        self._position = np.zeros(engine.settings.num_slots, np.int32)
        self._running: dict[int, Request] = {}  # by slot
        self._flags: tuple[jax.Array, jax.Array] | None = None  # of the chunk in flight
        self._shape = (0, 0)  # slots and cache length of its program
        self._tickets: dict[int, Ticket] = {}  # by id, of requests without a completion
        self._done: collections.deque[Ticket] = collections.deque()  # not polled yet
        self._has_failed = False  # in a step, which ended the service

    @property
    def is_idle(self) -> bool:
        """Whether every request has its completion."""
        return not self._tickets

    def submit(self, request: Request) -> Ticket:
        """Queues a request; it enters a slot at one of the next steps.

        Raises ValueError if it is too long, has a token or a method that is not there, or if a
        request without a completion has its id; RuntimeError if a step has failed.
        """
        self._check_alive()
        same = [t.request for t in (self._tickets.get(request.id),) if t]
        check_requests(self._engine.settings, [*same, request], self._seed)
        check_method(self._method, request)
        size = self._weights.prefill.config.vocab_size
        if min(request.prompt) < 0 or max(request.prompt) >= size:
            raise ValueError(
                f'request {request.id}: the prompt has token '
                f'{next(t for t in request.prompt if not 0 <= t < size)}; '
                f'those of the model are 0 to {size - 1}'
            )
        if self.is_idle:
            self._start = time.perf_counter()
        ticket = self._tickets[request.id] = Ticket(request)
        self._refill.queue.append(request)
        return ticket

    def step(self) -> None:
        """Ends the chunk in flight, refills its free slots, and starts the next chunk.

        Waits for the devices only where the host needs to know which slots are free. Raises
        FloatingPointError that names a request whose logits were not finite: its id is free again,
        and the other requests go on with the next step. Any other error while prompts are read or a
        chunk starts ends the service, because arrays may be gone: later calls raise RuntimeError.
        """
        self._check_alive()
        with self._here.in_force():
            finished = self._end_chunk()
            if self._prefix_cache is not None:  # the next prompts may start from what has ended
                self._complete(finished)
                finished = []
            self._has_failed = True
            self._start_chunk()
            self._has_failed = False
            self._complete(finished)

    def poll(self) -> list[Ticket]:
        """Returns the tickets with a completion that no call before has returned."""
        done = list(self._done)
        self._done.clear()
        return done

    def _check_alive(self) -> None:
        if self._has_failed:
            raise RuntimeError('this service ended when a step failed: serve from a new one')

    def _start_chunk(self) -> None:
        """Reads prompts into free slots and starts to decode; nothing if no slot is busy."""
        engine = self._engine
        for batch in self._refill.next(self._running, self._prefix_cache):
            self._state = engine._prefill(
                self._weights.prefill, self._state, batch, prefix_cache=self._prefix_cache
            )
            self._running.update(batch.entries)
            self._position[[slot for slot, _ in batch.entries]] = batch.positions
        if not self._running:
            return
        slots, length = engine._chunk_shape(self._running, self._position)
        self._state, self._flags = engine._decode_chunk(
            self._weights.decode,
            self._state,
            slots,
            method=self._method,
            seed=np.uint32(self._seed),
            length=length,
        )
        self._shape = engine.settings.num_slots if slots is None else len(slots), length

    def _end_chunk(self) -> list[Finished]:
        """Waits for the chunk in flight; takes the requests that it finished out of their slots."""
        if self._flags is None:
            return []
        before, (self._position, done) = self._position, np.array(self._flags)
        self._flags = None
        self._start = self._engine._count_chunk(
            self._position - before, self._running, shape=self._shape, start=self._start
        )
        self._engine._show_tokens(self._state, self._running, self._position)
        slots = [slot for slot in sorted(self._running) if done[slot]]
        return self._engine._read_finished(
            self._state, self._running, slots, position=self._position
        )

    def _complete(self, finished: Sequence[Finished]) -> None:
        completions, errors = self._engine._completions, []
        for request, result in completions(self._state, finished, self._prefix_cache):
            ticket = self._tickets.pop(request.id)
            if isinstance(result, FloatingPointError):
                ticket.error = result
                errors.append(result)
            else:
                ticket.completion = result
                self._done.append(ticket)
        if errors:  # raised when the other requests have what they sampled
            raise errors[0]
