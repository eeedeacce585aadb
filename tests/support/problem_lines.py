"""Problems of published sets, from single lines of their JSONL files."""

from elenchus.data.files import jsonl
from elenchus.data.problems import public_datasets
from elenchus.data.records import Problem


def parse(source: str, line: str, *, id: str) -> Problem:
    """Returns the problem of a line of a set, such as 'gsm8k'; its id is `source/id`."""
    builder = public_datasets.SETS[source]
    return public_datasets.parse_row(
        builder, jsonl.parse_record(line), place=f'{source}/{id}', id=id
    )
