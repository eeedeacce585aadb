"""Requests with sampling methods of their own in one service: each samples as it would alone."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from elenchus.model import placement, sharding
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.sampling.engine.request_methods import Methods
from elenchus.sampling.engine.requests import Request
from tests.sampling.engine import test_token_rules as cases

GREEDY = sampling_methods.Greedy(banned=(0, cases.EOS))


def stops_at_evens(token, logits, where):
    return token % 4 == 0


PAUSING = sampling_methods.with_rules(
    cases.PLAIN,
    None,
    cases.TokenRule(stops_at_evens, 'sampling.pause', ('attempt', 'refinement')),
)
ALL = (cases.PLAIN, GREEDY, cases.RULED, PAUSING)
MIXED = Methods(ALL)


def with_method(i, request):
    return dataclasses.replace(request, method=i % len(ALL))


def serve(method, requests, *, placed=None, **changes):
    """The completions of requests by id; the last ones come while the first decode."""
    sampler = engine.Engine(dataclasses.replace(cases.ENGINE, **changes), stop_ids=(cases.EOS,))
    service = sampler.serve(placed or cases.model(), method=method, seed=3)
    waiting, done = list(requests), {}
    while waiting or not service.is_idle:
        for request in waiting[:3]:
            service.submit(request)
        del waiting[:3]
        service.step()
        done |= {ticket.request.id: ticket.completion for ticket in service.poll()}
    return done


def alone():
    """What each request samples in a service of its method only."""
    done = {}
    for i, method in enumerate(ALL):
        own = [r for k, r in enumerate(cases.requests()) if k % len(ALL) == i]
        done |= serve(method, own)
    return done


@pytest.fixture(scope='module')
def expected():
    return alone()


def mixed_requests():
    return [with_method(i, request) for i, request in enumerate(cases.requests())]


def assert_same(completions, expected):
    assert completions.keys() == expected.keys()
    for name, completion in completions.items():
        assert completion.tokens == expected[name].tokens
        assert completion.logprobs == pytest.approx(expected[name].logprobs, abs=1e-5)


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'num_slots': 12, 'chunk_steps': 3, 'decode_batch_sizes': (4,)},
        {'draft_tokens': 2, 'draft_ngram': 1},
    ],
)
def test_a_request_samples_by_its_method_whatever_those_beside_it_are(expected, changes):
    completions = serve(MIXED, mixed_requests(), **changes)
    assert_same(completions, expected)
    sampled = [completions[request.id].tokens for request in mixed_requests()]
    paused = sampled[3 :: len(ALL)]
    assert all(stops_at_evens(jnp.array(t[-1]), None, None) for t in paused if len(t) < 12)
    assert any(len(t) < 12 for t in paused)


def test_methods_of_requests_on_a_mesh(expected):
    kinds = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.make_mesh((2, 1, 1), sharding.AXES, devices=jax.devices()[:2], axis_types=kinds)
    with jax.set_mesh(mesh):
        placed = placement.current().place(cases.model())
        assert_same(serve(MIXED, mixed_requests(), placed=placed), expected)


def test_one_method_alone_needs_no_index():
    (request, *_) = cases.requests()
    assert serve(Methods((GREEDY,)), [request]) == serve(GREEDY, [request])


@pytest.mark.parametrize(
    ('method', 'index', 'count'), [(MIXED, 4, 4), (MIXED, -1, 4), (GREEDY, 1, 1)]
)
def test_a_method_that_the_service_lacks_is_named(method, index, count):
    sampler = engine.Engine(cases.ENGINE, stop_ids=(cases.EOS,))
    service = sampler.serve(cases.model(), method=method, seed=3)
    wrong = Request(5, (20, 21), 4, method=index)
    with pytest.raises(ValueError, match=rf'request 5: method={index} must be in \[0, {count}\)'):
        service.submit(wrong)
    assert service.is_idle


@pytest.mark.parametrize('methods', [(), [GREEDY], GREEDY, (GREEDY, None), (MIXED,)])
def test_methods_are_a_tuple(methods):
    with pytest.raises(ValueError, match='must be a tuple of one or more methods'):
        Methods(methods)
