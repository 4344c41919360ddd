# SPDX-License-Identifier: Apache-2.0
"""Whether a failure is silence or an answer. Pure.

Silence, as where nobody listens, no packet comes back or a connection ends, may be made by anybody
between host and database. Policy says what a host does then (``store: offline``). What the server
says is an answer: a wrong password, an expired certificate, other tables, a replica, a statement
that took too long. So is what is wrong here, as a missing file. Where several servers were tried,
one answer is an answer.
"""

from typing import Final

_SILENCE: Final = (
    "Broken pipe",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "Host is down",
    "Network is unreachable",
    "No route to host",
    "No such file or directory",  # of a socket's folder: nobody listens
    "SSL SYSCALL error: EOF detected",
    "SSL connection has been closed unexpectedly",
    "could not translate host name",
    "server closed the connection unexpectedly",
    "the connection is lost",
    "timeout expired",
    "timeout",
)
_ANSWERS: Final = (
    "ERROR:",
    "FATAL:",
    "SSL error:",
    "authentication",
    "certificate",
    "does not support SSL",
    "passfile",
    "password",
    "private key",
    "read-only",
)


def is_silence(sqlstate: str | None, said: str) -> bool:
    """Whether a failure is that the database could not be reached.

    Args:
        sqlstate: the server's code; None where it did not send one.
        said: the failure in libpq's words, in English.
    """
    if sqlstate is not None or any(word in said for word in _ANSWERS):
        return False
    return any(word in said for word in _SILENCE)
