"""Checks responses against reference answers.

Most pairs are decided in this process, by kind (`comparison`). The others need math-verify, which
may hang, so they go to a pool of worker processes that can be killed.
"""

import collections
import os
import time
from collections.abc import Callable, Collection, Iterable
from multiprocessing import connection

from elenchus.data.grading import comparison, extraction
from elenchus.data.grading.comparison import Verdict
from elenchus.data.grading.workers import COMPARATOR, PATIENCE, STARTUP_S, Outcome, Worker

__all__ = ['PATIENCE', 'STARTUP_S', 'Outcome', 'Verifier', 'available_cores', 'figures']

WAIT_S = 0.5  # seconds between calls of `on_wait`, at most
MAX_KNOWN = 100_000  # outcomes of workers in the cache
_DECIDED = {
    Verdict.RIGHT: Outcome.RIGHT,
    Verdict.WRONG: Outcome.WRONG,
    Verdict.UNSURE: Outcome.UNSURE,
}


def available_cores() -> int:
    """Returns the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


class Verifier:
    """Checks responses against reference answers; a context manager that ends its workers.

    Pairs whose kinds are decisive are compared in this process. Others go to at most `num_workers`
    child processes (None: one per core), which start on first use. A worker is killed if a pair
    takes more than `timeout_s` seconds of CPU time, or `PATIENCE` times that in wall-clock time.
    `comparator` names the workers' function as 'module:function'. `counts` has the outcomes of all
    checks; `totals` adds the pairs that went to workers and the seconds of all checks. `on_wait` is
    called between pairs, several times a second; an exception from it ends the check.
    """

    def __init__(
        self,
        *,
        num_workers: int | None = None,
        timeout_s: float = 5.0,
        comparator: str = COMPARATOR,
    ):
        self._comparator = comparator
        self._idle, self._running = [], []
        self._known = {}
        self.on_wait: Callable[[], None] = lambda: None
        self.configure(num_workers=num_workers, timeout_s=timeout_s)
        self.counts = collections.Counter()
        self._num_algebra, self._seconds = 0, 0.0

    def configure(self, *, num_workers: int | None, timeout_s: float) -> None:
        """Sets the size of the pool and the time limit of workers that start from now on."""
        num_workers = available_cores() if num_workers is None else num_workers
        if num_workers < 1 or not timeout_s > 0:
            raise ValueError(f'num_workers={num_workers}, timeout_s={timeout_s}; both must be > 0')
        if timeout_s != getattr(self, '_timeout_s', timeout_s):
            self._known = {}  # a cached timeout may not hold under the new limit
        self._num_workers, self._timeout_s = num_workers, timeout_s

    def __enter__(self) -> 'Verifier':
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Kills the workers; a later check starts new ones."""
        for worker in self._idle + self._running:
            worker.kill()
        self._idle, self._running = [], []

    def check(
        self,
        pairs: Iterable[tuple[str, str]],
        markers: Collection[extraction.Marker] = extraction.MARKERS,
    ) -> list[Outcome]:
        """Returns the outcome of every (response, reference answer), in order.

        `markers` names what may stand before an answer. Raises RuntimeError if workers cannot
        start.
        """
        start = time.perf_counter()
        cases = [
            (extraction.extract_answer(response, markers), reference)
            for response, reference in pairs
        ]
        results = {}
        for case in dict.fromkeys(cases):
            self.on_wait()
            results[case] = self._known.get(case) or _decide(*case)
        hard = [case for case, outcome in results.items() if outcome is None]
        try:
            results |= self._run_workers(hard)
        finally:
            while self._running:  # only after an error
                self._running.pop().kill()
        outcomes = [results[case] for case in cases]
        self._remember(hard, results)
        self.counts.update(outcomes)
        self._seconds += time.perf_counter() - start
        return outcomes

    def totals(self) -> collections.Counter:
        """Returns the outcomes of all checks, `algebra` and `seconds`; see `figures`."""
        return collections.Counter(
            {str(outcome): count for outcome, count in self.counts.items()}
            | {'algebra': self._num_algebra, 'seconds': self._seconds}
        )

    def _remember(self, hard: list[tuple[str, str]], results: dict) -> None:
        """Caches the outcomes of workers, timeouts included, because each of those costs a worker.

        Errors are not cached: the next try may end in another way.
        """
        self._num_algebra += len(hard)
        for case in hard:
            if results[case] is not Outcome.ERROR:
                self._known[case] = results[case]
        while len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def _run_workers(self, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], Outcome]:
        waiting, outcomes = collections.deque(pairs), {}
        while waiting or self._running:
            self.on_wait()
            while waiting and len(self._running) < self._num_workers:
                worker = (
                    self._idle.pop() if self._idle else Worker(self._comparator, self._timeout_s)
                )
                self._running.append(worker)
                worker.send(waiting.popleft())
            for worker, outcome in self._wait():
                outcomes[worker.pair] = outcome
                self._running.remove(worker)
                if outcome is not Outcome.TIMEOUT and worker.is_alive:
                    self._idle.append(worker)
                else:  # its process is dead or hangs
                    worker.kill()
        return outcomes

    def _wait(self) -> list[tuple[Worker, Outcome]]:
        """Waits for a message or a deadline; returns the workers that finished, with outcomes."""
        timeout = min(worker.deadline for worker in self._running) - time.monotonic()
        timeout = min(max(0, timeout), WAIT_S)
        readable = connection.wait([worker.connection for worker in self._running], timeout)
        done = []
        for worker in self._running:
            if worker.connection in readable:
                outcome = worker.receive()
            elif time.monotonic() >= worker.deadline:
                outcome = worker.expire()
            else:
                continue
            if outcome is not None:
                done.append((worker, outcome))
        return done


def figures(totals: collections.Counter) -> dict[str, float]:
    """Returns pairs a second and the shares of outcomes that judge nothing; {} without pairs.

    `algebra` is the share of pairs that went to workers. `totals` is `Verifier.totals`, or the
    difference of two.
    """
    count = sum(totals[outcome] for outcome in Outcome)
    if not count:
        return {}
    shares = ('algebra', Outcome.UNSURE, Outcome.TIMEOUT, Outcome.ERROR)
    return {
        'pairs': count,
        'pairs_per_s': round(count / max(totals['seconds'], 1e-9), 1),
    } | {str(name): round(totals[name] / count, 4) for name in shares}


def _decide(answer: str | None, reference: str) -> Outcome | None:
    """Returns the outcome if no worker is needed, else None."""
    if answer is None:
        return Outcome.NO_ANSWER
    return _DECIDED.get(comparison.decide(answer, reference))
