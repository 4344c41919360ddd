# SPDX-License-Identifier: Apache-2.0
"""Many sessions of one user at once, over a daemon, over verifiers on demand, or over both."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence

from host_program import Host, Login
from installed import DataRoot
from serving import DAEMON, ON_DEMAND, serving, verifiers_on_demand

MIXED = "mixed"
Twin = Callable[[], DataRoot]


@contextlib.contextmanager
def twins_of(root: DataRoot) -> Iterator[Twin]:
    """Give what makes a second root on the same data where no daemon listens."""
    made: list[DataRoot] = []

    def make() -> DataRoot:
        other = DataRoot(root.prefix)
        made.append(other)
        shutil.rmtree(other.path / "var")
        (other.path / "var").symlink_to(root.path / "var")
        return other

    yield make
    for other in made:
        other.remove()


@contextlib.contextmanager
def crowd(root: DataRoot, twin: Twin, way: str, sessions: int) -> Iterator[list[Host]]:
    """Have many sessions of alice wait at their first prompt, served in this way."""
    roots = [root, twin()] if way == MIXED else [root]
    started = {DAEMON: 0, ON_DEMAND: sessions, MIXED: sessions // 2}
    with contextlib.ExitStack() as stack:
        stack.enter_context(serving(root, ON_DEMAND if way == ON_DEMAND else DAEMON))
        hosts = []
        for number in range(sessions):
            host = Host(Login(roots[number % len(roots)], "alice"))
            stack.callback(host.kill)
            host.begin()
            hosts.append(host)
        for host in hosts:
            assert host.question() is not None
        assert sum(len(verifiers_on_demand(each)) for each in roots) == started[way]
        yield hosts


def offer(hosts: Sequence[Host], *answers: str) -> list[int]:
    """Let every session give these answers, the first at once; return how they end."""
    for host in hosts:
        host.answer(answers[0])
    return [host.finish(answers[1:]).status for host in hosts]
