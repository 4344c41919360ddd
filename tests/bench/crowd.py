# SPDX-License-Identifier: Apache-2.0
"""Worker processes that log in at the same time.

Processes, not threads: every real login is a process of its own, and PAM modules change the
process's user while they work. One at once is a crowd of one, so both levels run the same code.
"""

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import TracebackType
from typing import Self

from contender import BenchmarkError, Contender, User
from one_login import Attempt, Libpam

PATIENCE = 600.0  # seconds for one round of one contender: a hang, not a slow machine


class Crowd:
    """As many processes as there are logins at once, forked from here and kept for all rounds."""

    def __init__(self, size: int, contenders: Mapping[str, Contender], services: Path) -> None:
        """Fork the workers; the contenders must be prepared by now, services named as keys."""
        self.size = size
        context = multiprocessing.get_context("fork")
        barrier = context.Barrier(size)
        self._connections: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        for _ in range(size):
            ours, theirs = context.Pipe()
            worker = context.Process(
                target=_serve, args=(theirs, barrier, contenders, services), daemon=True
            )
            worker.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(worker)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the workers, also one that hangs."""
        for process in self._processes:
            process.kill()
            process.join()

    def log_in(self, service: str, users: Sequence[User]) -> list[Attempt]:
        """Log every user in once, the workers starting together; return all attempts.

        Raises:
            BenchmarkError: a worker died or hung.
        """
        for i, connection in enumerate(self._connections):
            connection.send((service, users[i :: self.size]))
        attempts: list[Attempt] = []
        for connection in self._connections:
            try:
                if not connection.poll(PATIENCE):
                    raise BenchmarkError(f"{service}: no answer from a worker in {PATIENCE:.0f} s")
                attempts += connection.recv()
            except EOFError as error:
                raise BenchmarkError(f"{service}: the module took its process down") from error
        return attempts


def _serve(
    connection: Connection, barrier: Barrier, contenders: Mapping[str, Contender], services: Path
) -> None:
    """Be one worker: take a service and users, wait for the others, log in, report."""
    libpam = Libpam(services)
    while True:
        service, users = connection.recv()
        contender = contenders[service]
        barrier.wait()
        attempts = []
        for user in users:
            # A code of this moment, before the clock starts: time steps roll over during a run.
            code = contender.code(user, time.time())
            attempts.append(libpam.log_in(service, user.name, code))
        connection.send(attempts)
