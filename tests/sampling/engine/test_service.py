"""Requests that come one by one: what they sample, and what the host does beside the devices."""

import dataclasses

import numpy as np
import pytest

from elenchus.sampling.engine import engine, service
from elenchus.sampling.engine.requests import Request
from tests.sampling.engine import test_engine as cases


class InTurns(service.Service):
    """Makes the completions of a chunk before the next one starts, as `generate` once did."""

    def step(self):
        with self._here.in_force():
            self._complete(self._end_chunk())
            self._start_chunk()


@pytest.fixture
def sampler():
    return engine.Engine(cases.SETTINGS, stop_ids=(cases.EOS,))


def serve(sampler, kind=service.Service, *, seed=0):
    return kind(sampler, cases.model(), method=cases.SAMPLING, seed=seed)


def drain(running):
    """Completions in the order in which they end."""
    done = []
    while not running.is_idle:
        running.step()
        done += [ticket.completion for ticket in running.poll()]
    assert not running.poll()
    return done


def test_all_that_is_submitted_at_once_is_what_generate_returns(sampler):
    """Token for token, and every log-probability; also as without a chunk in flight."""
    expected = cases.reference()
    for kind in (service.Service, InTurns):
        running = serve(sampler, kind)
        tickets = [running.submit(request) for request in cases.requests()]
        assert len(drain(running)) == len(expected)
        assert [ticket.completion for ticket in tickets] == expected


def test_the_schedule_and_what_is_counted_are_those_without_a_chunk_in_flight():
    counts = []
    for kind in (service.Service, InTurns):
        sampler = engine.Engine(cases.SETTINGS, stop_ids=(cases.EOS,))
        running = serve(sampler, kind)
        for request in cases.requests():
            running.submit(request)
        order = [completion.id for completion in drain(running)]
        work = dataclasses.replace(sampler.work, seconds=0.0)
        counts.append((order, work, sampler.tokens, sampler.steps))
    assert counts[0] == counts[1]


def test_requests_that_come_while_others_decode_sample_what_they_do_alone(sampler):
    expected = {completion.id: completion for completion in cases.reference()}
    running, waiting = serve(sampler), list(cases.requests())
    done = []
    while waiting or not running.is_idle:
        if waiting:
            running.submit(waiting.pop(0))
        running.step()
        done += [ticket.completion for ticket in running.poll()]
    assert {completion.id: completion for completion in done} == expected
    assert [c.id for c in done] != sorted(expected)  # short ones overtake those before them


def test_services_of_two_seeds_by_turns_do_not_disturb_each_other(sampler):
    alone = [drain_all(serve(sampler, seed=seed)) for seed in (0, 1)]
    both = [serve(sampler, seed=seed) for seed in (0, 1)]
    for running in both:
        for request in cases.requests():
            running.submit(request)
    both_done = [{}, {}]
    while not all(running.is_idle for running in both):
        for running, completions in zip(both, both_done, strict=True):
            running.step()
            completions |= {t.completion.id: t.completion for t in running.poll()}
    assert both_done == alone and both_done[0] != both_done[1]


def drain_all(running):
    for request in cases.requests():
        running.submit(request)
    return {completion.id: completion for completion in drain(running)}


def test_the_next_chunk_has_started_when_completions_are_read(sampler, monkeypatch):
    events = []
    decode_chunk, completion = sampler._decode_chunk, sampler._completion

    def counted(name, function):
        def call(*args, **kwargs):
            events.append(name)
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(sampler, '_decode_chunk', counted('chunk', decode_chunk))
    monkeypatch.setattr(sampler, '_completion', counted('done', completion))
    running = serve(sampler)
    running.submit(Request(0, (20, 21), 2))  # ends in the first chunk
    running.submit(Request(1, (20, 21), 12))  # of a few
    running.step()
    assert events == ['chunk'] and not running.poll()
    running.step()
    assert events == ['chunk', 'chunk', 'done']
    assert [ticket.request.id for ticket in running.poll()] == [0]


def test_an_id_is_free_again_once_its_request_is_done(sampler):
    running = serve(sampler)
    first = running.submit(Request(5, (20, 21), 2))
    with pytest.raises(ValueError, match='request id 5 occurs 2 times'):
        running.submit(Request(5, (20,), 2))
    with pytest.raises(ValueError, match=r'request 6: .* exceed'):
        running.submit(Request(6, tuple(range(10, 40)), 2))
    drain(running)
    again = running.submit(Request(5, (20, 21), 2))
    running.step()
    running.step()
    assert running.is_idle and again.completion == first.completion
    assert np.isfinite(again.completion.logprobs).all()


def test_an_idle_service_does_nothing(sampler):
    running = serve(sampler)
    running.step()
    assert running.is_idle and running.poll() == [] and sampler.tokens == 0
    with pytest.raises(ValueError, match='seed=-1'):
        serve(sampler, seed=-1)


def test_a_request_whose_logits_are_not_finite_stops_no_other(sampler, monkeypatch):
    """It is named once; what ended in the same chunk, and what came later, has its completion."""
    whole = sampler._completion

    def spoilt(request, tokens, logprobs, *, steps):
        factor = np.nan if request.id == 101 else 1.0
        return whole(request, tokens, logprobs * factor, steps=steps)

    monkeypatch.setattr(sampler, '_completion', spoilt)
    running, errors, steps = serve(sampler), [], 0
    tickets = [running.submit(request) for request in cases.requests()]
    while not running.is_idle and (steps := steps + 1) < 50:
        try:
            running.step()
        except FloatingPointError as error:
            errors.append(error)
    assert running.is_idle and len(running.poll()) == len(tickets) - 1
    for ticket, expected in zip(tickets, cases.reference(), strict=True):
        if ticket.request.id == 101:
            assert ticket.completion is None and errors == [ticket.error]
            assert str(ticket.error).startswith('request 101: ')
        else:
            assert ticket.completion == expected and ticket.error is None


def test_a_step_that_fails_while_prompts_are_read_ends_the_service(sampler, monkeypatch):
    """Its requests are in no queue and in no slot: a caller would wait for them for ever."""
    running = serve(sampler)
    running.submit(Request(1, (20, 21), 2))

    def fails(*_, **__):
        raise MemoryError('prefill')

    with monkeypatch.context() as patch, pytest.raises(MemoryError, match='prefill'):
        patch.setattr(sampler, '_prefill', fails)
        running.step()
    for call in (running.step, lambda: running.submit(Request(2, (20, 21), 2))):
        with pytest.raises(RuntimeError, match='this service ended'):
            call()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'prompt': (20, 64)}, 'request 1: the prompt has token 64; those .* 0 to 63'),
        ({'prompt': (-5, 20)}, 'request 1: the prompt has token -5'),
        ({'prompt': [20, 21]}, 'request 1: the prompt is a list; nearest: a tuple'),
        ({'max_tokens': 2.5}, r'request 1: max_tokens=2\.5 is no int'),
        ({'id': 'a'}, "request 'a': id='a' is no int"),
    ],
)
def test_a_request_of_wrong_values_is_refused_and_none_is_disturbed(sampler, changes, message):
    running = serve(sampler)
    running.submit(Request(0, (20, 21), 2))
    with pytest.raises(ValueError, match=message):
        running.submit(Request(**{'id': 1, 'prompt': (20,), 'max_tokens': 2} | changes))
    assert [completion.id for completion in drain(running)] == [0]
