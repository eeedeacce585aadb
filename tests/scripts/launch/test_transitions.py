"""The state machine of the launchers: its rules, on the orders of events that hypothesis makes."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elenchus.scripts.launch import exit_codes, transitions
from elenchus.scripts.launch.states import (
    Action,
    Cause,
    Failure,
    Kind,
    Observation,
    Policy,
    Progress,
    Resource,
    Run,
    State,
    Success,
)

POLICY = Policy(retries=2, max_preemptions=4, max_hours=3.0, delete_tries=3)
CODES = st.sampled_from([0, 1, 2, 75, 124, 137, 143, 139, 255])
FAILURES = st.builds(Failure, st.just(Kind.LOOK), st.sampled_from(Cause), st.just('reason'))
LOOKS = st.builds(
    Observation,
    st.sampled_from(Resource),
    st.sampled_from(Run),
    CODES,
    st.booleans(),
)
OUTCOMES = st.lists(
    st.tuples(st.floats(0, 4000), st.one_of(LOOKS, FAILURES), st.one_of(st.none(), FAILURES)),
    min_size=1,
    max_size=60,
)
HEALTHY = Observation(Resource.READY, Run.RUNNING)


def run(outcomes, policy=POLICY, progress=None):
    """Lets the machine meet these outcomes, again from the first; returns its steps.

    A step is (progress before, event, action): an action's outcome is the next event.
    """
    progress, action, now, steps = progress or Progress(), Action(Kind.LOOK), 0.0, []
    for seconds, look, failure in outcomes * 40:
        now += action.delay + seconds
        if action.kind is Kind.LOOK:
            event = look
        elif failure is None:
            event = Success(action.kind)
        else:
            event = dataclasses.replace(failure, kind=action.kind)
        before = progress
        progress, action = transitions.advance(before, event, now=now, policy=policy)
        steps.append((before, event, progress, action))
        if action.kind is Kind.END:
            break
    return steps


@settings(max_examples=150, deadline=None)
@given(OUTCOMES)
def test_what_is_healthy_goes_on(outcomes):
    """While it runs on ready machines within the budget, the next action is another look."""
    for before, event, after, action in run(outcomes):
        if before.ending or after.ending:
            continue
        healthy = isinstance(event, Observation) and (event.resource, event.run) == (
            Resource.READY,
            Run.RUNNING,
        )
        failed = isinstance(event, Failure) and event.kind is Kind.LOOK
        if healthy or failed:
            assert action.kind is Kind.LOOK


@settings(max_examples=150, deadline=None)
@given(OUTCOMES)
def test_what_is_healthy_ends_by_the_budget_alone(outcomes):
    """A run that goes on is given up for its budget only, and machines that were lost never are."""
    for before, event, after, action in run(outcomes):
        if not isinstance(event, Observation) or before.ending or not after.ending:
            continue
        if (event.resource, event.run) == (Resource.READY, Run.RUNNING):
            assert 'budget' in after.why and action.kind in (Kind.STOP, Kind.DELETE)
        if event.run is Run.UNKNOWN and event.resource is Resource.READY and before.reached:
            assert 'budget' in after.why


@settings(max_examples=150, deadline=None)
@given(OUTCOMES)
def test_retries_are_bounded_and_the_budget_holds(outcomes):
    steps = run(outcomes)
    requests = [event for _, event, _, _ in steps if event == Success(Kind.CREATE)]
    assert len(requests) <= 1 + POLICY.max_preemptions + POLICY.retries
    for before, _, after, action in steps:
        limits = (POLICY.retries, POLICY.retries, POLICY.max_preemptions)
        counts = (after.requests, after.installs, after.preemptions)
        assert all(count <= limit for count, limit in zip(counts, limits, strict=True))
        assert action.delay >= 0 and after.billed >= before.billed
        if after.billing is not None and not after.ending:
            assert action.delay <= POLICY.max_hours * 3600


@settings(max_examples=150, deadline=None)
@given(OUTCOMES)
def test_the_end_is_deleted_or_says_that_it_is_not(outcomes):
    """END comes after a deletion, or where nothing is, or it is another's, or with a warning."""
    steps = run(outcomes)
    _, event, progress, action = steps[-1]
    if action.kind is not Kind.END:
        return
    assert progress.state in (State.DONE, State.FAILED) and action.exit_code == progress.exit_code
    assert (progress.exit_code == 0) == (progress.state is State.DONE)
    if event == Success(Kind.DELETE):
        assert progress.billing is None
    elif isinstance(event, Failure) and event.kind is Kind.DELETE:
        assert progress.deletes >= POLICY.delete_tries and 'NOT DELETED' in progress.why
    else:
        words = (
            'another run',
            'somebody deleted',
            'look:',
            'create:',
            'NOT REQUESTED FROM HERE, AND STAY',
        )
        assert any(word in progress.why for word in words), progress


def see(progress, event, *, now=0.0, policy=POLICY):
    return transitions.advance(progress, event, now=now, policy=policy)


RUNNING = Progress(state=State.RUNNING, installed=True, reached=True, started=0.0, billing=0.0)
RUNNING = dataclasses.replace(RUNNING, requested=0.0)


@pytest.mark.parametrize('code', [1, 137, 143, 139, 255])
def test_a_crash_starts_again_on_the_same_machines_with_doubling_delays(code):
    ended = Observation(Resource.READY, Run.ENDED, code)
    progress, delays = RUNNING, []
    for _ in range(POLICY.retries):
        progress, action = see(progress, ended)
        assert action.kind is Kind.LOOK  # whether somebody has stopped it meanwhile
        delays.append(action.delay)
        progress, action = see(progress, ended)
        assert action == Action(Kind.START)
        progress, _ = see(progress, Success(Kind.START))
    assert delays == [60.0, 120.0]
    progress, action = see(progress, ended)
    assert action.kind is Kind.DELETE and progress.exit_code == code


def test_after_a_start_that_failed_the_sources_are_installed_again():
    failed = Failure(Kind.START, Cause.FAILED, 'cd: elenchus: No such file or directory')
    progress, action = see(dataclasses.replace(RUNNING, started=None), failed)
    assert (action.kind, progress.installs) == (Kind.LOOK, 1)
    progress, action = see(progress, Observation(Resource.READY, Run.ABSENT))
    assert action.kind is Kind.INSTALL


def test_a_crash_after_a_long_attempt_counts_as_the_first():
    ended = Observation(Resource.READY, Run.ENDED, 1)
    progress = dataclasses.replace(RUNNING, crashes=2)
    progress, action = see(progress, ended, now=POLICY.healthy)
    assert action == Action(Kind.LOOK, POLICY.poll) and progress.crashes == 1


@pytest.mark.parametrize(('code', 'state'), [(0, State.DONE), (2, State.FAILED)])
@pytest.mark.parametrize(('after', 'kind'), [('delete', Kind.DELETE), ('leave', Kind.END)])
def test_the_end_deletes_unless_after_says_leave(code, state, after, kind):
    policy = dataclasses.replace(POLICY, after=after)
    progress, action = see(RUNNING, Observation(Resource.READY, Run.ENDED, code), policy=policy)
    assert (progress.state, action.kind, progress.exit_code) == (state, kind, code)


def test_a_run_that_is_stopped_between_two_starts_is_not_started_again():
    crashed = Observation(Resource.READY, Run.ENDED, 1)
    progress, action = see(RUNNING, crashed)
    assert (action.kind, action.delay > 0, progress.crashes) == (Kind.LOOK, True, 1)
    again, action = see(progress, crashed)
    assert (action.kind, again.crashes) == (Kind.START, 1)
    stopped, action = see(progress, dataclasses.replace(crashed, stopped=True))
    assert (action.kind, stopped.why) == (Kind.DELETE, 'stopped by the action stop')
    restarted, action = see(progress, HEALTHY)
    assert (action.kind, see(restarted, crashed)[0].crashes) == (Kind.LOOK, 2)


def test_the_budget_stops_the_run_then_deletes_whatever_after_says():
    policy = dataclasses.replace(POLICY, after='leave')
    progress, action = see(RUNNING, HEALTHY, now=POLICY.max_hours * 3600, policy=policy)
    assert action.kind is Kind.STOP
    progress, action = see(progress, Success(Kind.STOP), policy=policy)
    assert action == Action(Kind.DELETE, POLICY.grace)
    progress, action = see(progress, Success(Kind.DELETE), policy=policy)
    assert action == Action(Kind.END, exit_code=exit_codes.BUDGET) and 'budget' in progress.why


def test_a_wait_is_never_negative():
    """Whatever is seen after the end of the budget: a clock cannot sleep below 0."""
    spent, after = POLICY.max_hours * 3600, 1000.0
    for resource in Resource:
        for state in Run:
            seen = Observation(resource, state, 1)
            assert see(RUNNING, seen, now=spent + after)[1].delay >= 0, seen


def test_a_long_wait_is_cut_at_the_budget():
    lost = Failure(Kind.LOOK, Cause.UNREACHABLE, 'x')
    _, action = see(dataclasses.replace(RUNNING, misses=9), lost, now=POLICY.max_hours * 3600 - 7)
    assert action == Action(Kind.LOOK, 7.0)


def test_silence_deletes_only_hosts_that_never_answered():
    silent = Observation(Resource.READY, Run.UNKNOWN, detail='no route')
    policy = dataclasses.replace(POLICY, max_hours=1e9)
    for reached, kind in [(True, Kind.LOOK), (False, Kind.DELETE)]:
        progress = dataclasses.replace(RUNNING, reached=reached)
        for _ in range(policy.silence + 1):
            progress, action = see(progress, silent, policy=policy)
        assert action.kind is kind
    progress = dataclasses.replace(RUNNING, reached=False, requested=None)
    for _ in range(policy.silence + 1):
        progress, action = see(progress, silent, policy=policy)
    assert action.kind is Kind.END and 'NOT REQUESTED FROM HERE' in progress.why
    _, action = see(dataclasses.replace(progress, ending=False), silent, now=1e12)
    assert action.kind is not Kind.DELETE


def test_a_request_that_is_not_listed_yet_is_not_repeated_at_once():
    progress, action = see(Progress(), Observation(Resource.ABSENT))
    assert action.kind is Kind.CREATE
    progress, _ = see(progress, Success(Kind.CREATE))
    kinds = []
    for _ in range(POLICY.absences):
        progress, action = see(progress, Observation(Resource.ABSENT))
        kinds.append(action.kind)
    assert kinds == [Kind.LOOK] * (POLICY.absences - 1) + [Kind.CREATE]


def test_what_somebody_is_deleting_is_requested_when_it_is_gone():
    leaving, gone = Observation(Resource.LEAVING), Observation(Resource.ABSENT)
    progress, action = see(Progress(), leaving)
    assert action == Action(Kind.LOOK, POLICY.poll)
    assert see(progress, gone)[1].kind is Kind.CREATE
    progress, action = see(RUNNING, leaving, now=60.0)
    assert (action.kind, progress.billed) == (Kind.LOOK, 60.0)
    for _ in range(POLICY.absences):
        progress, action = see(progress, gone, now=60.0)
    assert action == Action(Kind.END, exit_code=1) and 'somebody deleted it' in progress.why


def test_what_somebody_deleted_does_not_come_back():
    progress = RUNNING
    for _ in range(POLICY.absences):
        progress, action = see(progress, Observation(Resource.ABSENT), now=3600.0)
    assert action == Action(Kind.END, exit_code=1) and progress.billed == 3600.0


@given(st.lists(CODES, min_size=1, max_size=8))
def test_the_code_of_a_pod_is_the_one_that_explains_the_others(codes):
    code = exit_codes.code_of_hosts(codes)
    assert code in codes
    assert code == exit_codes.code_of_hosts(codes[::-1])
    if 124 in codes:
        assert code == 124
    elif 2 in codes:
        assert code == 2
    elif 137 in codes and 1 in codes:
        assert code >= 137
    assert (code == 0) == (set(codes) == {0})


def test_every_ending_has_a_row_and_every_row_its_codes():
    assert {row.ending for row in exit_codes.TABLE} == set(exit_codes.Ending)
    for row in exit_codes.TABLE:
        numbers = [int(word) for word in row.codes.replace(',', ' ').split() if word.isdigit()]
        assert all(exit_codes.ending_of(number) is row.ending for number in numbers)
    assert exit_codes.ending_of(-9) is exit_codes.Ending.KILLED
