"""The site: it is built without a warning, and every link of every page leads to a file."""

import os
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]
LINK = re.compile(r'(?:href|src)="?([^"\s>]+)')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Folder of the site, built strictly: a warning is an error."""
    pytest.importorskip('material', reason="mkdocs is missing: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp('site')
    process = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '-f', 'docs/site/mkdocs.yml']
        + ['-d', str(folder)],
        cwd=ROOT,
        env=os.environ | {'NO_MKDOCS_2_WARNING': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert 'WARNING' not in process.stderr
    return folder


def test_every_document_is_a_page_and_in_the_navigation(site):
    home = (site / 'index.html').read_text()
    pages = sorted((ROOT / 'docs').rglob('*.md'))
    assert len(pages) > 20
    for path in pages:
        name = path.relative_to(ROOT / 'docs').with_suffix('.html').as_posix()
        assert (site / name).is_file() and name in home, name


def test_every_link_leads_to_a_file_of_the_site(site):
    links = set()
    for page in site.rglob('*.html'):
        if page.name != '404.html':
            links |= {(page, link) for link in LINK.findall(page.read_text())}
    here = {pair for pair in links if not re.match(r'#|[a-z]+:', pair[1])}
    assert len(here) > 500
    wrong = []
    for page, link in here:
        target = page.parent / urllib.parse.unquote(re.split('[#?]', link)[0])
        if not target.exists():
            wrong.append((page.relative_to(site), link))
    assert not wrong


def test_links_to_the_code_are_pages_of_it(site):
    page = (site / 'source/configs/prompts.py.html').read_text()
    assert 'PRESETS' in page
    assert (
        '../source/configs/prompts.py.html' in (site / 'guide/critic_benchmarks.html').read_text()
    )
