# SPDX-License-Identifier: Apache-2.0
"""A dialogue carried out on this terminal: shows, asks, waits for a key, and ends at Ctrl-C.

And how far something long is.
"""

import contextlib
import sys
from collections.abc import Callable, Generator, Iterator
from threading import Event, Thread
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import Progress

from pam_mfa.audit import Reason
from pam_mfa.errors import BrokenSystemError
from pam_mfa.verification import Ask, Listen, Need, Tell, Work

_Result = TypeVar("_Result")
_LAST_WORDS = 3.0  # seconds that a key has to be released after Ctrl-C


def drive(running: Generator[Need, Any, _Result]) -> _Result:
    """Carry a dialogue to its end and return what it returned.

    Raises:
        click.Abort: Ctrl-C; what was under way has been canceled.
    """
    reply: object = None
    question = ""
    while True:
        try:
            need = running.send(reply)
        except StopIteration as end:
            result: _Result = end.value
            return result
        reply = None
        if isinstance(need, Ask):
            question = need.text
        elif isinstance(need, Listen):
            reply = read_hidden(question)
        elif isinstance(need, Tell):
            click.echo(need.text)
        elif isinstance(need, Work):
            reply = _work(need)
        else:
            raise BrokenSystemError("a dialogue on a terminal has nothing to commit")


@contextlib.contextmanager
def show_progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far something is, on a terminal and beside its output."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _count: None
        return
    with Progress(console=console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


def read_hidden(question: str) -> str | Reason:
    """Ask without an echo, or read a line where standard input is no terminal."""
    if sys.stdin.isatty():
        return str(
            click.prompt(question.rstrip(" :"), hide_input=True, default="", show_default=False)
        )
    click.echo(question.rstrip())
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else Reason.NO_CONVERSATION


def _work(need: Work) -> object:
    """Do what blocks in a thread, so that Ctrl-C reaches this one and cancels it."""
    canceled = Event()
    answers: list[object] = []
    worker = Thread(target=lambda: answers.append(need.do(canceled)), daemon=True)
    worker.start()
    try:
        worker.join()
    except KeyboardInterrupt as error:
        canceled.set()
        worker.join(_LAST_WORDS)
        raise click.Abort from error
    if not answers:
        raise BrokenSystemError("a security key could not be asked")
    return answers[0]
