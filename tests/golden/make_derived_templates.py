"""Writes tests/golden/derived_templates.json: hashes of texts rendered by `transformers`.

    python -m tests.golden.make_derived_templates     (needs the extra `peers`)

Every template of tests/support/published_templates.py and of make_chat_templates.py is rendered
over the conversations of scripts/bench/compare_templates.py, as prompts. A hash of None is a
conversation that the template refuses.
"""

import hashlib
import json
import pathlib

from elenchus.data.text.derived_templates import Source
from elenchus.scripts.bench import compare_templates
from tests.golden import make_chat_templates
from tests.support import published_templates

GOLDEN = pathlib.Path(__file__).with_name('derived_templates.json')


def templates() -> dict[str, str]:
    """Returns all templates by name."""
    return make_chat_templates.TEMPLATES | published_templates.TEMPLATES


def source_of(text: str) -> Source:
    """Returns a template with the texts of its first and last token."""
    names = ('bos_token', 'eos_token')
    ends = compare_templates.first_and_last(text)
    return Source(text, tuple(zip(names, ends, strict=True)))


def hash_of(text: str | None) -> str | None:
    """Returns a short hash of a text."""
    return text if text is None else hashlib.sha256(text.encode()).hexdigest()[:10]


def main() -> None:
    golden = {}
    for name, text in templates().items():
        theirs = compare_templates.Theirs(compare_templates.small_tokenizer(text), source_of(text))
        golden[name] = {
            label: hash_of(theirs.text(messages[:-1], prompt=True))
            for label, messages in compare_templates.conversations()
        }
    GOLDEN.write_text(json.dumps(golden, indent=0) + '\n')


if __name__ == '__main__':
    main()
