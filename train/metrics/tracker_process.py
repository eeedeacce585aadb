"""A process of its own in which the library of a tracker runs; needs only that library.

It reads one JSON object a line from its standard input: first what to open, then what to show, and
at last how the run ended. Without that last line, of a run that was killed, the tracker says so.
Whatever the library does here - it hangs, crashes, exits or asks for a password - is nothing to the
run, which only writes into a pipe (`trackers.py`).
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import signal
import sys
import tempfile
import threading
import typing

FINISH_S = 60.0
"""Seconds for the end of a tracker whose run is gone."""

Message = typing.Dict[str, typing.Any]  # noqa: UP006 - read by no other module


class Board(typing.Protocol):
    """What a library is asked to do."""

    def log(self, stage: str, values: Message) -> None:
        """Shows values of a stage; its step is among them."""

    def histogram(self, counts: list[float], edges: list[float]) -> object:
        """Returns the library's histogram."""

    def text(self, text: str) -> object:
        """Returns the library's text, which is shown as it is, without markup."""

    def finish(self, failed: bool) -> None:
        """Ends the run there."""


class WandbBoard:
    """Weights & Biases; WANDB_MODE, WANDB_API_KEY, WANDB_ENTITY and so on are its own variables."""

    def __init__(self, first: Message):
        import wandb

        self._library, self._stages = wandb, set()
        self._run = wandb.init(
            project=first['project'],
            id=first['id'],
            name=first['name'],
            config=first['config'],
            dir=first['folder'] or tempfile.gettempdir(),
            resume='allow',
            settings=wandb.Settings(console='off', silent=True),
        )

    def log(self, stage: str, values: Message) -> None:
        """Shows values of a stage against its own step."""
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f'{stage}/step', hidden=True)
            self._run.define_metric(f'{stage}/*', step_metric=f'{stage}/step')
        self._run.log(values)

    def histogram(self, counts: list[float], edges: list[float]) -> object:
        """Returns a histogram."""
        return self._library.Histogram(np_histogram=(counts, edges))

    def text(self, text: str) -> object:
        """Returns a text."""
        return self._library.Html(f'<pre>{html.escape(text)}</pre>', inject=False)

    def finish(self, failed: bool) -> None:
        """Ends the run there."""
        self._run.finish(exit_code=int(failed))


class TrackioBoard:
    """Trackio; TRACKIO_DIR, TRACKIO_SPACE_ID and so on are its own variables."""

    def __init__(self, first: Message):
        import trackio

        self._library = trackio
        trackio.init(
            project=first['project'],
            name=f'{first["name"]}-{first["id"][:6]}',
            config=first['config'],
            resume='allow',
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, stage: str, values: Message) -> None:
        """Shows values of a stage; its step is one of them."""
        self._library.log(values)

    def histogram(self, counts: list[float], edges: list[float]) -> object:
        """Returns a histogram."""
        return self._library.Histogram(np_histogram=(counts, edges))

    def text(self, text: str) -> object:
        """Returns a text."""
        return self._library.Markdown('\n'.join(f'    {line}' for line in text.splitlines()))

    def finish(self, failed: bool) -> None:
        """Ends the run there."""
        self._library.finish()


BOARDS = {'wandb': WandbBoard, 'trackio': TrackioBoard}


def show(board: Board, message: Message) -> None:
    """Shows what one message holds: scalars, a histogram or a text."""
    stage, step = message['stage'], message['step']
    if 'scalars' in message:
        values = message['scalars']
    elif 'histogram' in message:
        values = {message['name']: board.histogram(*message['histogram'])}
    else:
        values = {message['name']: board.text(message['text'])}
    board.log(stage, {f'{stage}/step': step} | {f'{stage}/{n}': v for n, v in values.items()})


def serve(stream: typing.Iterable[str]) -> None:
    """Shows what comes through a stream until it ends."""
    lines = iter(stream)
    first = json.loads(next(lines))
    board = BOARDS[first['library']](first)
    failed = True  # unless the run says how it ended
    for line in lines:
        message = json.loads(line)
        if 'failed' in message:
            failed = message['failed']
        else:
            show(board, message)
    limit = threading.Timer(FINISH_S, os._exit, [1])
    limit.daemon = True
    limit.start()
    board.finish(failed)


if __name__ == '__main__':
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # for the run; the end of the
        signal.signal(number, signal.SIG_IGN)  # pipe is the end here
    pipe = os.fdopen(os.dup(0), encoding='utf-8')
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a library that asks gets no answer
    try:
        with contextlib.suppress(StopIteration):
            serve(pipe)
    except SystemExit:  # some libraries end their process
        print('the library ended its process', file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)
