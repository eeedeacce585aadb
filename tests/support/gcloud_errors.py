"""What gcloud and ssh print when something is wrong, as people have published it.

openshift/release#68528 (network, login), marin-community/marin#3404 (not found), #1612 (quota) and
#6198 (rate), GoogleCloudPlatform/t5x-on-vertex-ai#5 and tensorflow/tpu#296 (permission, and the
details behind a message), hashicorp/terraform-provider-google#21243 (capacity), Google Cloud SDK
528, command_lib/compute/tpus/tpu_vm/ssh.py and exceptions.py (ssh, and states of a node).
"""

from elenchus.scripts.launch.cloud import Refused, Unreachable
from elenchus.scripts.launch.commands import Result

GROUP = 'ERROR: (gcloud.compute.tpus.queued-resources'
CREATE, DESCRIBE, DELETE = f'{GROUP}.create)', f'{GROUP}.describe)', f'{GROUP}.delete)'
LOGIN_HINT = """
Please run:

  $ gcloud auth login

to obtain new credentials.

If you have already logged in with a different account, run:

  $ gcloud config set account ACCOUNT

to select an already authenticated account to use.
"""
NETWORK = Result(
    1,
    '',
    f'{DESCRIBE} There was a problem refreshing your current auth tokens: HTTPSConnectionPool('
    "host='oauth2.googleapis.com', port=443): Max retries exceeded with url: /token (Caused by "
    'NameResolutionError("<urllib3.connection.HTTPSConnection object at 0x7f0d5010edd0>: Failed to '
    f"resolve 'oauth2.googleapis.com' ([Errno -3] Try again)\"))" + LOGIN_HINT,
)
SERVER = Result(1, '', f'{CREATE} UNAVAILABLE: The service is currently unavailable.')
TOKEN = Result(
    1,
    '',
    f"{DESCRIBE} There was a problem refreshing your current auth tokens: ('invalid_grant: Bad "
    "Request', {'error': 'invalid_grant', 'error_description': 'Bad Request'})" + LOGIN_HINT,
)
REAUTHENTICATION = Result(
    1,
    '',
    f'{DESCRIBE} There was a problem refreshing your current auth tokens: Reauthentication failed. '
    'cannot prompt during non-interactive execution.' + LOGIN_HINT,
)
ZONE = Result(1, '', f'{DESCRIBE} NOT_FOUND: Location us-west9-z is not found.')
ZONE_DENIED = Result(
    1,
    '',
    f'{DESCRIBE} PERMISSION_DENIED: Location us-west9-z is not found or access is unauthorized.',
)
BILLING = Result(
    1,
    '',
    f'{DESCRIBE} PERMISSION_DENIED: This API method requires billing to be enabled. Please enable '
    'billing on project #1 by visiting https://console.developers.google.com/billing/enable then '
    'retry.',
)
LOGIN = Result(
    1, '', f'{DESCRIBE} You do not currently have an active account selected.{LOGIN_HINT}'
)
QUOTA = Result(
    1,
    '',
    f"{CREATE} RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepodPerProjectPerZoneForTPUAPI' has been "
    'exceeded. Limit: 0 in zone z.',
)
RATE = Result(
    1,
    '',
    f"{CREATE} RESOURCE_EXHAUSTED: Quota exceeded for quota metric 'Create requests' and limit "
    "'Create requests per minute' of service 'tpu.googleapis.com'.",
)
CAPACITY = Result(
    1,
    '',
    f'{CREATE} {{"code": 8, "message": "There is no more capacity in the zone \\"z\\"; you can try '
    'in another zone where Cloud TPU Nodes are offered (see '
    'https://cloud.google.com/tpu/docs/regions) '
    '[EID: 0x9f48947a7d57c8d]"}',
)
PERMISSION = Result(
    1,
    '',
    f"{CREATE} PERMISSION_DENIED: Permission 'tpu.nodes.create' denied on "
    "'projects/p/locations/z'.\n"
    "- '@type': type.googleapis.com/google.rpc.ErrorInfo\n  domain: tpu.googleapis.com\n"
    '  reason: IAM_PERMISSION_DENIED',
)
BUSY = Result(1, '', f'{DELETE} UNAVAILABLE: The service is currently unavailable.')
RETRIES = (
    'SSH: Attempting to connect to worker 0...\n'
    'ssh: connect to host 10.0.0.2 port 22: Connection timed out\n'
    'Failed to execute command on multiple workers. This may have happened if you have not added '
    'your SSH key to your ssh-agent using "ssh-add ~/.ssh/google_compute_engine".\n'
    'Retrying: SSH command error: [/usr/bin/ssh] exited with return code [255].\n'
)
SSH = Result(255, '', RETRIES * 9)
AGENT = Result(
    1,
    '',
    'ERROR: (gcloud.compute.tpus.tpu-vm.ssh) SSH Key is not present in the SSH agent. Please run '
    '"ssh-add /home/u/.ssh/google_compute_engine" to add it, and try again.',
)
DOWN = Result(
    1,
    '',
    'ERROR: (gcloud.compute.tpus.tpu-vm.ssh) This TPU has terminal state "PREEMPTED", so it '
    'cannot be used anymore.',
)


def missing_resource(name):
    """Answer of `describe` and `delete` for a name that is not there."""
    kind = f"Resource 'projects/p/locations/z/queuedResources/{name}' was not found"
    account = 'u@example.com which is the active account specified by the [core/account] property'
    details = "- '@type': type.googleapis.com/google.rpc.ResourceInfo\n  resourceName: " + kind
    text = f'{DESCRIBE} NOT_FOUND: {kind}. This command is authenticated as {account}\n{details}'
    return Result(1, '', text)


def already_exists(name):
    """Answer of `create` for a name that is there."""
    resource = f'projects/p/locations/z/queuedResources/{name}'
    return Result(1, '', f"{CREATE} ALREADY_EXISTS: Resource '{resource}' already exists")


NOT_INSTALLED = Refused('gcloud is not installed, or not on the path')
HANGS = Unreachable('gcloud did not end in 300 s')
