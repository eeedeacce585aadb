"""A stand-in for curl on a host of a slice: metadata server, IAM, Cloud Storage and the TPU API.

$CURL_STAND_IN has `permissions` (of the hosts' service account, a line each) and `number` (of the
host); it gets `log` (method and address, a line a call), `bucket/OBJECT` and, after a deletion,
`deleted`. $CURL_ON_DELETE is a command that a deletion runs. Answers follow cloud.google.com:
compute/docs/metadata, storage/docs/json_api/v1/objects/insert, tpu/docs/reference/rest/v2.
"""

import json
import os
import pathlib
import subprocess
import sys
import urllib.parse

FOLDER = pathlib.Path(os.environ['CURL_STAND_IN'])
METADATA = 'http://metadata.google.internal/computeMetadata/v1/'


def option(*names):
    """Value of an option, '' without it."""
    words = sys.argv[1:]
    return next((words[i + 1] for i, word in enumerate(words) if word in names), '')


def read(name, default=''):
    path = FOLDER / name
    return path.read_text(encoding='utf-8') if path.exists() else default


def answer(code, body):
    """Prints as `-o FILE -w %{http_code}` asks; curl's own code for -f is 22."""
    if option('-o'):
        pathlib.Path(option('-o')).write_text(body, encoding='utf-8')
        sys.stdout.write(str(code))
    elif code >= 400:
        sys.exit(22)
    else:
        sys.stdout.write(body)


def metadata(path):
    values = {
        'instance/service-accounts/default/token': json.dumps(
            {'access_token': 'secret', 'expires_in': 3599, 'token_type': 'Bearer'}
        ),
        'instance/attributes/agent-worker-number': read('number', '0'),
        'instance/attributes/tpu-env': "ZONE: 'z'\nCONSUMER_PROJECT_ID: 'p'\n",
        'project/project-id': 'tenant-tp',
    }
    answer(200, values[path]) if path in values else answer(404, 'not found')


def main():
    """Does what the words say."""
    url, method = sys.argv[-1], option('-X') or 'GET'
    with open(FOLDER / 'log', 'a', encoding='utf-8') as log:
        log.write(f'{method} {url}\n')
    if url.startswith(METADATA):
        assert 'Metadata-Flavor: Google' in sys.argv
        return metadata(url.removeprefix(METADATA))
    if 'Authorization: Bearer secret' not in sys.argv:
        return answer(401, '{"error": {"code": 401, "status": "UNAUTHENTICATED"}}')
    parts, permissions = urllib.parse.urlsplit(url), read('permissions').split()
    if parts.path.endswith(':testIamPermissions'):
        wanted = json.loads(option('--data'))['permissions']
        return answer(200, json.dumps({'permissions': [p for p in wanted if p in permissions]}))
    if parts.path.startswith('/upload/storage/v1/b/'):
        name = urllib.parse.parse_qs(parts.query)['name'][0]
        path = FOLDER / 'bucket' / parts.path.split('/')[5] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pathlib.Path(option('--data-binary').removeprefix('@')).read_bytes())
        return answer(200, '{"kind": "storage#object"}')
    if method == 'DELETE' and 'tpu.nodes.delete' in permissions:
        (FOLDER / 'deleted').write_text(url, encoding='utf-8')
        if 'CURL_ON_DELETE' in os.environ:
            subprocess.Popen(os.environ['CURL_ON_DELETE'].split(), start_new_session=True)
        return answer(200, '{"name": "projects/p/locations/z/operations/1"}')
    body = {
        'code': 403,
        'message': "Permission 'tpu.nodes.delete' denied",
        'status': 'PERMISSION_DENIED',
    }
    return answer(403, json.dumps({'error': body}))


if __name__ == '__main__':
    main()
