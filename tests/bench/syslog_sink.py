# SPDX-License-Identifier: Apache-2.0
"""A syslog for machines that have none, so that no module pays for its absence.

PAM modules log with LOG_CONS: where nothing listens on /dev/log, glibc opens the console and writes
there instead. On a serial console that took a millisecond a line, two thirds of a whole login with
pam_google_authenticator, and would flatter whatever is compared with it. A listening syslog is left
alone and its cost counts, as in real use.
"""

import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contender import BenchmarkError

DEV_LOG = Path("/dev/log")  # _PATH_LOG in glibc; it cannot be set


@contextmanager
def working_syslog() -> Iterator[str]:
    """Make sure that something reads /dev/log; give a sentence that says what it is.

    Raises:
        BenchmarkError: a dead socket is in the way.
    """
    if DEV_LOG.exists():
        _require_listener()
        yield "the machine's own"
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(DEV_LOG))
        DEV_LOG.chmod(0o666)
        context = multiprocessing.get_context("fork")
        reader = context.Process(target=_drop_messages, args=(receiver,), daemon=True)
        try:
            reader.start()
            yield "none; a reader of the benchmark's drops the messages"
        finally:
            DEV_LOG.unlink(missing_ok=True)
            reader.kill()
            reader.join()


def _require_listener() -> None:
    """Check that a message to /dev/log would be read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(DEV_LOG))
        except OSError as error:
            raise BenchmarkError(
                f"{DEV_LOG}: {error.strerror}; start syslog or remove it"
            ) from error


def _drop_messages(receiver: socket.socket) -> None:
    """Read for ever, so that a full queue never blocks a login."""
    while True:
        receiver.recv(65536)
