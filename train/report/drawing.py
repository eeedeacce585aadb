"""Draws plots: as SVG in a page, as PNG, and as SVG and PNG in one style for papers."""

import contextlib
import html
import io
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import matplotlib
from matplotlib import figure as figures

from elenchus.data.files import atomic

INK = '#123456'  # placeholder of the page's text colour; `inline_svg` replaces it
PAPER_DPI = 300
Plot = Callable[[], figures.Figure]
"""A function and no figure, because styles apply while it draws."""


@contextlib.contextmanager
def _drawing(style: Mapping[str, Any]) -> Iterator[None]:
    """Sets the style; names that the font lacks, or that are too long, do not warn."""
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph|constrained_layout', UserWarning)
        yield


def _style(ink: str) -> dict[str, Any]:
    names = ('text.color', 'axes.edgecolor', 'axes.labelcolor', 'axes.titlecolor')
    colours = dict.fromkeys((*names, 'xtick.color', 'ytick.color', 'grid.color'), ink)
    sizes = {'font.size': 9, 'axes.titlesize': 10, 'font.family': 'sans-serif'}
    return (
        colours
        | sizes
        | {'svg.fonttype': 'none', 'svg.hashsalt': 'elenchus', 'text.parse_math': False}
    )


def inline_svg(plot: Callable[[], figures.Figure], caption: str) -> str:
    """Draws a plot as SVG for a page; it takes the page's text colour, light or dark."""
    buffer = io.StringIO()
    with _drawing(_style(INK)):
        plot().savefig(buffer, format='svg', transparent=True, metadata={'Date': None})
    # Without date and metadata the same data give the same bytes.
    text = re.sub(r'<metadata>.*?</metadata>', '', buffer.getvalue(), flags=re.DOTALL)
    drawing = text[text.index('<svg') :].replace(INK, 'currentColor')
    return f'<figure>{drawing}<figcaption>{html.escape(caption)}</figcaption></figure>'


def save_png(plot: Callable[[], figures.Figure], path: pathlib.Path) -> None:
    """Draws a plot into a PNG file. `plot` is a function, because styles apply while it draws."""
    buffer = io.BytesIO()
    with _drawing(_style(INK)):
        plot().savefig(buffer, format='png', dpi=150, facecolor='white')
    atomic.write_bytes(path, buffer.getvalue())


def save_for_paper(plot: Plot, path: os.PathLike) -> None:
    """Draws a plot into PATH.svg and PATH.png, in black on white; the same data, the same bytes.

    Texts of the SVG are outlines, so that it looks alike wherever it is included.
    """
    formats = {
        '.svg': {'metadata': {'Date': None}},
        '.png': {'dpi': PAPER_DPI, 'metadata': {'Software': None}},
    }
    style = _style('#000000') | {'svg.fonttype': 'path'}
    with _drawing(style):
        figure = plot()
        for ending, options in formats.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=ending[1:], facecolor='white', **options)
            atomic.write_bytes(f'{os.fspath(path)}{ending}', buffer.getvalue())
