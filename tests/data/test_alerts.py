"""Commands and web addresses that are told about a run."""

import http.server
import json
import re
import sys
import threading
import time

import pytest

from elenchus.data.text import alerts


def sent(target, event='failed', text='runs/lab: loss nan'):
    """What was warned of, once the alert has ended."""
    warnings = []
    process = alerts.send(target, event, text, warn=warnings.append)
    end = time.monotonic() + 20
    while process is not None and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    for thread in threading.enumerate():
        if thread.name.endswith('(_wait)'):
            thread.join(20)
    return warnings


def test_a_command_gets_the_event_and_one_line_and_no_shell_reads_them(tmp_path):
    path = tmp_path / 'its words'
    code = 'import json, sys; json.dump(sys.argv[2:], open(sys.argv[1], "w"))'
    target = f"{sys.executable} -c '{code}' '{path}'"
    text = 'a; rm -rf / $(id) `id`\n"it\'s" ' + 'x' * 5000
    assert sent(target, text=text) == []
    words = json.loads(path.read_text())
    assert words[0] == 'failed' and words[1].startswith('a; rm -rf / $(id) `id` "it\'s" x')
    assert len(words) == 2 and len(words[1]) == alerts.MAX_TEXT and '\n' not in words[1]


@pytest.mark.parametrize(
    ('target', 'warned'),
    [
        ('', ''),
        ('true', ''),
        ('false', "the alert 'failed' ended with exit code 1"),
        ('no-such-command', "the alert 'failed' was not sent: .*no-such-command"),
        ("bash -c 'echo why >&2; exit 3'", 'exit code 3: why'),
        ('http://127.0.0.1:9/x', 'exit code 1: .*refused'),
    ],
)
def test_a_command_that_fails_is_said_once_and_ends_nothing(target, warned):
    warnings = sent(target)
    assert len(warnings) == bool(warned) and re.search(warned, '\n'.join(warnings))


def test_an_address_gets_json():
    bodies = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers['Content-Length']))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    assert sent(f'http://127.0.0.1:{server.server_address[1]}/hook', 'done', 'it "is"') == []
    server.shutdown()
    server.server_close()
    assert bodies == [{'event': 'done', 'text': 'elenchus: done: it "is"'}]


@pytest.mark.parametrize(
    ('target', 'wrong'),
    [
        ('', ''),
        (' ', ''),
        ('mail me', ''),
        ('https://x/y z', ''),
        ('echo "', 'no closing quotation'),
    ],
)
def test_a_command_that_is_none_is_named(target, wrong):
    assert wrong in alerts.check(target) and bool(wrong) == bool(alerts.check(target))
