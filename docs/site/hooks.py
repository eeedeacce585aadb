"""Hooks of MkDocs: README and CONTRIBUTING become pages, and links to the code become pages of it.

The documents are written for a clone, in which they link to files beside docs/. In the site each of
these files is a page below source/, so that every link leads somewhere without a network.
"""

import os
import pathlib
import re
import runpy

from mkdocs.structure.files import File

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
DOCS = ROOT / 'docs'
OUTSIDE = {'README.md': 'index.md', 'CONTRIBUTING.md': 'contributing.md'}
"""Documents outside of docs/ -> their pages."""
LANGUAGES = {'.py': 'python', '.sh': 'bash', '.toml': 'toml', '.cff': 'yaml'}
LINK = re.compile(r'(\]\()([^)\s]+)(\))')
FENCE = re.compile(r'^(```.*?^```)', re.MULTILINE | re.DOTALL)


def on_files(files, *, config):
    """Adds the pages that are made while the site is built."""
    for name, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text('utf-8')))
    messages = runpy.run_path(str(HERE / 'all_messages.py'))['page']()
    files.append(File.generated(config, 'all_messages.md', content=messages))
    documents = [*DOCS.rglob('*.md'), *(ROOT / name for name in OUTSIDE)]
    for path in sorted({source for document in documents for source in sources_of(document)}):
        files.append(File.generated(config, page_of(path), content=source_page(path)))
    return files


def on_page_markdown(markdown, *, page, config, files):
    """Leads the links of a page to pages of the site."""
    origins = {value: ROOT / key for key, value in OUTSIDE.items()}
    origin = origins.get(page.file.src_uri, DOCS / page.file.src_uri)
    start = pathlib.PurePosixPath(page.file.src_uri).parent

    def lead(match):
        target, hash_sign, anchor = match[2].partition('#')
        path = resolve(origin, target)
        if path is None:
            return match[0]
        return f'{match[1]}{os.path.relpath(page_of(path), start)}{hash_sign}{anchor}{match[3]}'

    parts = FENCE.split(markdown)
    return ''.join(part if part.startswith('```') else LINK.sub(lead, part) for part in parts)


def sources_of(document):
    """Yields the files outside of docs/ that a document links to."""
    text = FENCE.sub('', document.read_text('utf-8'))
    for _, target, _ in LINK.findall(text):
        path = resolve(document, target.partition('#')[0])
        if (
            path
            and not path.is_relative_to(DOCS)
            and path.relative_to(ROOT).as_posix() not in OUTSIDE
        ):
            yield path


def resolve(document, target):
    """Returns the file or folder of the clone that a link means, None if it means none."""
    if not target or re.match(r'[a-z]+:', target):
        return None
    path = (document.parent / target.replace('\\', '')).resolve()
    return path if path.exists() and path.is_relative_to(ROOT) else None


def page_of(path):
    """Returns the page, or the file of the site, that shows a file of the clone."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return OUTSIDE.get(name, f'source/{name}.md')


def source_page(path):
    """Returns a page with the text of a file, or the list of the files in a folder."""
    title = f'# {path.relative_to(ROOT).as_posix()}\n\n'
    if path.is_dir():
        return title + ''.join(f'- `{child.name}`\n' for child in sorted(path.glob('*.*')))
    language = LANGUAGES.get(path.suffix, 'text')
    return f'{title}````{language}\n{path.read_text("utf-8")}\n````\n'
