"""The annotator `api` against a server that fails in every way, and against a kill."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from elenchus.configs import sections
from elenchus.data import records
from elenchus.data.critiques import grammars
from elenchus.data.critiques.oracle import ConstructedAttempt, NoCritique
from elenchus.sampling.critique_data import api_annotator, api_requests
from elenchus.sampling.critique_data.api_settings import ApiSettings
from tests.support import fake_api

pytest.importorskip('openai', reason='openai is not installed: pip install elenchus[api]')

KEY = 'sk-secret'
WRONG = grammars.RELEASED.write(
    grammars.Critique((grammars.StepVerdict('48/2 = 22', False, '48/2 is 24.'),), False, 'No.')
)
PASSED = WRONG.replace('answer: Wrong', 'answer: Correct')
PROBLEM = records.Problem('p', 'How many is half of 48?', '24', '48/2 = 24\n#### 24', 1, 'gsm8k')
ITEM = ConstructedAttempt(PROBLEM, '48/2 = 22\n#### 22', 'RG1', None, None)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv('OPENAI_API_KEY', KEY)


def settings(url, **changes):
    fast = {'backoff_s': 0.001, 'timeout_s': 5.0, 'attempts': 4, 'requests_per_minute': 1e6}
    return ApiSettings(**sections.api(base_url=url, **(fast | changes)))


def question(i):
    return [{'role': 'user', 'content': f'question {i}'}]


def of(body):
    return body['messages'][-1]['content']


@pytest.mark.parametrize('status', [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_retried_and_paid_for_once(tmp_path, status):
    def respond(body, number):
        return fake_api.failure(status) if number < 2 else fake_api.completion(of(body))

    with fake_api.serve(respond) as api:
        client = api_requests.Client(settings(api.url), tmp_path)
        assert [a.text for a in client.ask([question(0), question(1)])] == [
            'question 0',
            'question 1',
        ]
        assert len(api.seen) == 6 and len(api.paid) == 2


@pytest.mark.parametrize('status', [401, 403, 404])
def test_a_lasting_failure_stops_at_once_and_does_not_show_the_key(tmp_path, status):
    with fake_api.serve(lambda body, number: fake_api.failure(status)) as api:
        client = api_requests.Client(settings(api.url, parallel=1), tmp_path)
        with pytest.raises(api_requests.ApiError, match=f'status {status}') as error:
            client.ask([question(0), question(1)])
        assert len(api.seen) == 1
    assert KEY not in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    'body', [b'', b'{', b'[]', b'null', b'{}', b'{"choices": []}', b'{"choices": [{}]}', b'<html>',
             b'{"choices": [{"message": null}]}', b'{"choices": [{"message": {"content": null}}]}',
             b'{"choices": 3}', b'{"choices": [3]}', b'\xff\xfe'],
)  # fmt: skip
def test_what_is_no_chat_completion_is_requested_again(tmp_path, body):
    def respond(request, number):
        return (200, {}, body) if number == 0 else fake_api.completion('ok')

    with fake_api.serve(respond) as api:
        client = api_requests.Client(settings(api.url), tmp_path)
        assert client.ask([question(0)])[0].text == 'ok'
        assert len(api.seen) == 2


@pytest.mark.parametrize('reason', ['length', 'content_filter', 'stop'])
def test_a_completion_without_content_is_paid_for_once_and_counted(tmp_path, reason):
    with fake_api.serve(lambda body, number: fake_api.completion(None, reason)) as api:
        for _ in range(2):
            client = api_requests.Client(settings(api.url), tmp_path)
            assert client.ask([question(0)]) == [api_requests.Answer(None, reason, 100, 10)]
        assert len(api.paid) == 1 and client.usage()['answer_tokens'] == 10


@pytest.mark.parametrize('damaged', ['', '{"request": 1}', '{"answer": {"words": 1}}', '[]'])
def test_other_files_are_no_answers_and_a_damaged_answer_is_named(tmp_path, damaged):
    with fake_api.serve(lambda body, number: fake_api.completion('ok')) as api:
        client = api_requests.Client(settings(api.url), tmp_path)
        client.ask([question(0)])
        (stored,) = tmp_path.glob('*.json')
        (tmp_path / 'notes.json').write_text('{}')
        assert client.usage()['requests'] == 1
        stored.write_text(damaged)
        with pytest.raises(ValueError, match=f'{stored.name} is no stored answer: delete it') as e:
            client.ask([question(0)])
        assert '\n' not in str(e.value)


def test_a_request_without_an_answer_in_time_is_sent_again(tmp_path):
    def respond(body, number):
        if number == 0:
            time.sleep(0.6)
        return fake_api.completion('ok')

    with fake_api.serve(respond) as api:
        client = api_requests.Client(settings(api.url, timeout_s=0.3), tmp_path)
        assert client.ask([question(0)])[0].text == 'ok'


def test_a_server_that_never_recovers_ends_the_run_but_keeps_what_is_paid(tmp_path):
    def respond(body, number):
        return fake_api.failure(503) if of(body) == 'question 2' else fake_api.completion('ok')

    with fake_api.serve(respond) as api:
        client = api_requests.Client(settings(api.url, parallel=1), tmp_path)
        with pytest.raises(api_requests.ApiError, match='status 503, after 4 attempts'):
            client.ask([question(i) for i in range(4)])
        assert sum(KEY in path.read_text() for path in tmp_path.iterdir()) == 0
        api.respond = lambda body, number: fake_api.completion('ok')
        assert len(client.ask([question(i) for i in range(4)])) == 4
        assert len(api.paid) == 4


def test_nobody_listens(tmp_path):
    client = api_requests.Client(settings('http://127.0.0.1:9/v1'), tmp_path)
    with pytest.raises(api_requests.ApiError, match='no connection, after 4 attempts'):
        client.ask([question(0)])


def test_the_wait_that_a_server_names_is_kept_and_others_double(tmp_path):
    waits = []

    def respond(body, number):
        replies = (fake_api.failure(429, retry_after='7'), fake_api.failure(500),
                   fake_api.failure(429, retry_after='tomorrow'))  # fmt: skip
        return replies[number] if number < 3 else fake_api.completion('ok')

    with fake_api.serve(respond) as api:
        slow = settings(api.url, backoff_s=1.0)
        client = api_requests.Client(slow, tmp_path, sleep=waits.append)
        client.ask([question(0)])
    assert waits[0] == 7.0 and 1.5 <= waits[1] <= 2.5 and 3.0 <= waits[2] <= 5.0


def test_the_rate_and_the_number_of_open_requests_are_limited(tmp_path):
    def respond(body, number):
        time.sleep(0.05)
        return fake_api.completion('ok')

    with fake_api.serve(respond) as api:
        limited = settings(api.url, requests_per_minute=60 / 0.02, parallel=3)
        api_requests.Client(limited, tmp_path).ask([question(i) for i in range(12)])
    assert api.most_open <= 3
    assert max(api.starts) - min(api.starts) >= 11 * 0.02 * 0.9


def test_equal_requests_are_one_and_another_setting_is_another_request(tmp_path):
    with fake_api.serve(lambda body, number: fake_api.completion('ok')) as api:
        requests = [question(0), question(1), question(0)]
        assert len(api_requests.Client(settings(api.url), tmp_path).ask(requests)) == 3
        api_requests.Client(settings(api.url, attempts=2), tmp_path).ask(requests)
        assert len(api.paid) == 2
        api_requests.Client(settings(api.url, temperature=1.0), tmp_path).ask(requests)
        assert len(api.paid) == 4


def test_tokens_and_cost_are_counted(tmp_path):
    with fake_api.serve(lambda body, number: fake_api.completion('ok')) as api:
        priced = settings(api.url, prompt_price=2.5, answer_price=10.0)
        client = api_requests.Client(priced, tmp_path)
        client.ask([question(i) for i in range(4)])
        client.ask([question(0)])
    usage = {'requests': 4, 'prompt_tokens': 400, 'answer_tokens': 40, 'cost': 0.0014}
    assert client.usage() == usage


CHILD = """
import json, pathlib, sys
from elenchus.sampling.critique_data import api_requests
from elenchus.sampling.critique_data.api_settings import ApiSettings
client = api_requests.Client(ApiSettings(**json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]))
ids = [i // 2 for i in range(24)]
client.ask([[{'role': 'user', 'content': f'question {i}'}] for i in ids])
"""


@pytest.mark.slow  # a process of its own
def test_a_killed_run_continues_and_pays_for_every_distinct_request_once(tmp_path):
    gate = threading.Event()

    def respond(body, number):
        if int(of(body).split()[1]) >= 5:
            gate.wait(60)
        return fake_api.completion(of(body))

    with fake_api.serve(respond) as api:
        fields = sections.api(base_url=api.url, parallel=3, timeout_s=60.0)
        command = [sys.executable, '-c', CHILD, json.dumps(fields), str(tmp_path)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        while len(list(tmp_path.glob('*.json'))) < 5:
            assert child.poll() is None
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        before, api.respond = len(api.paid), lambda body, number: fake_api.completion(of(body))
        client = api_requests.Client(ApiSettings(**fields), tmp_path)
        replies = client.ask([question(i // 2) for i in range(24)])
        assert before == 5 and [a.text for a in replies[::2]] == [
            f'question {i}' for i in range(12)
        ]
        assert len(api.paid) == len(set(api.paid)) == client.usage()['requests'] == 12
        gate.set()
    assert not any(KEY in path.read_text() for path in tmp_path.iterdir())
    assert set(api.keys) == {f'Bearer {KEY}'}


# The annotator


def annotate(tmp_path, reply, item=ITEM):
    with fake_api.serve(lambda body, number: reply) as api:
        annotator = api_annotator.api_annotator(settings(api.url), tmp_path)
        (critique,) = annotator([item])
    return critique


def test_a_whole_critique_is_taken_as_it_is(tmp_path):
    assert annotate(tmp_path, fake_api.completion(WRONG)) == WRONG
    assert json.loads((tmp_path / 'usage.txt').read_text())['requests'] == 1


@pytest.mark.parametrize(
    ('reply', 'reason'),
    [
        (fake_api.completion(WRONG, 'length'), 'cut_off'),
        (fake_api.completion('It looks wrong to me.'), 'no_verdict'),
        (fake_api.completion(''), 'no_verdict'),
        (fake_api.completion(PASSED), 'contradicts_answer'),
        (fake_api.failure(400), 'refused_by_server'),
        (fake_api.completion(None, 'length'), 'cut_off'),
        (fake_api.completion(None, 'content_filter'), 'refused_by_server'),
        (fake_api.completion(None, 'stop'), 'refused_by_server'),
    ],
)  # fmt: skip
def test_a_critique_that_cannot_be_used_has_a_reason(tmp_path, reply, reason):
    assert annotate(tmp_path, reply) == NoCritique(reason)


@pytest.mark.parametrize('attempt', ['', '\n', ' \n\t\n'])
@pytest.mark.parametrize('location', [None, 0])
def test_an_attempt_without_lines_has_no_critique_and_costs_nothing(tmp_path, attempt, location):
    empty = ConstructedAttempt(PROBLEM, attempt, 'RG2', location, None)
    with fake_api.serve(lambda body, number: fake_api.completion(WRONG)) as api:
        annotator = api_annotator.api_annotator(settings(api.url), tmp_path)
        reason = NoCritique('empty_attempt')
        assert annotator([empty, ITEM, empty]) == [reason, WRONG, reason]
        assert annotator([empty]) == [reason]
        assert len(api.paid) == 1


def test_a_mistake_before_the_known_line_contradicts_it(tmp_path):
    item = ConstructedAttempt(PROBLEM, '48/2 = 22\n22 = 22\n#### 22', 'RG3', 1, 'number')
    assert annotate(tmp_path, fake_api.completion(WRONG), item) == NoCritique(
        'contradicts_location'
    )


def test_the_request_shows_what_the_construction_knows():
    def shown(construction, location, kind):
        attempt = 'a\n\nb\n48/2 = 22\n#### 22'
        item = ConstructedAttempt(PROBLEM, attempt, construction, location, kind)
        return api_annotator.messages_of(item)[-1]['content']

    assert 'Step' not in shown('RG1', None, None)
    assert 'steps before step 3 are correct' in shown('RG2', 3, None)
    assert 'Step 3 has a mistake of this kind: number' in shown('RG3', 3, 'number')
    assert PROBLEM.solution in shown('RG1', None, None)


def test_without_a_key_the_error_names_the_variable(monkeypatch, tmp_path):
    monkeypatch.delenv('OPENAI_API_KEY')
    with pytest.raises(ValueError, match='OPENAI_API_KEY is not set'):
        api_requests.Client(settings('http://127.0.0.1:9/v1'), tmp_path)


@pytest.mark.parametrize(
    'changes',
    [{'base_url': 'ftp://x'}, {'base_url': 'api.openai.com'}, {'base_url': 'http://u:p@x/v1'},
     {'base_url': 'http://x/v1?key=1'}, {'key_variable': 'sk-secret'}, {'attempts': 0}],
)  # fmt: skip
def test_a_setting_that_cannot_be_meant_is_named(changes):
    with pytest.raises(ValueError, match=f'critique.api.{next(iter(changes))}') as error:
        ApiSettings(**sections.api(**changes))
    assert 'sk-secret' not in str(error.value)
