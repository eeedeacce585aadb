"""Settings of the annotator `api`: the server, its limits and its prices."""

import dataclasses
import urllib.parse
from typing import Annotated

from elenchus.model.ranges import Range, checked

Seconds = Annotated[float, Range(0.001, 86_400.0)]
Price = Annotated[float, Range(0.0, 100_000.0)]


@dataclasses.dataclass(frozen=True)
@checked('critique.api')
class ApiSettings:
    """An OpenAI-compatible server, and how it is asked.

    The key itself is in no setting, so that it is in no file: `key_variable` names the environment
    variable that has it.
    """

    base_url: str  # such as https://api.openai.com/v1
    model: str
    key_variable: str
    cache: str  # folder of answers that are paid for
    temperature: Annotated[float, Range(0.0, 2.0)]
    max_tokens: Annotated[int, Range(1, 1_000_000)]  # of an answer
    timeout_s: Seconds  # of one request
    attempts: Annotated[int, Range(1, 100)]  # of each request, before the run fails
    backoff_s: Seconds  # before the second attempt; doubles each time
    requests_per_minute: Annotated[float, Range(0.001, 1_000_000.0)]
    parallel: Annotated[int, Range(1, 1000)]  # requests that are open at a time
    prompt_price: Price  # of a million tokens, in the currency of the bill
    answer_price: Price

    def __post_init__(self):
        parts = urllib.parse.urlsplit(self.base_url)
        if parts.scheme not in ('http', 'https') or not parts.hostname:
            raise ValueError(
                f'critique.api.base_url={self.base_url!r} must begin with http:// or https://; '
                "nearest: 'https://api.openai.com/v1'"
            )
        if parts.username or parts.password or parts.query:
            raise ValueError(
                'critique.api.base_url has a user, a password or a query: settings are stored, so '
                'put the key into the environment variable that critique.api.key_variable names'
            )
        if not self.key_variable.isidentifier():
            raise ValueError(
                'critique.api.key_variable must be the name of an environment variable; '
                "nearest: 'OPENAI_API_KEY'"
            )
