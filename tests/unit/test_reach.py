# SPDX-License-Identifier: Apache-2.0
"""What of a database's failures is silence, and what an answer; the words are libpq's own."""

import pytest

from pam_mfa.store.postgresql.reach import is_silence

AT = 'connection to server at "db" (192.0.2.1), port 5432 failed: '


@pytest.mark.parametrize(
    "said",
    [
        f"{AT}Connection refused\n\tIs the server running on that host?",
        f"{AT}Connection timed out", f"{AT}timeout expired", "connection timeout expired",
        f"{AT}No route to host", f"{AT}Network is unreachable",
        f"{AT}server closed the connection unexpectedly",
        f"{AT}could not receive data from server: Connection reset by peer",
        f"{AT}SSL SYSCALL error: EOF detected", "the connection is lost",
        'could not translate host name "db" to address: Name or service not known',
        'connection to server on socket "/run/x/.s.PGSQL.5432" failed: No such file or directory',
        f"{AT}Connection refused\n{AT}timeout expired",
    ],
)  # fmt: skip
def test_silence(said: str) -> None:
    """Where nobody answers, the database cannot be reached."""
    assert is_silence(None, said)


@pytest.mark.parametrize(
    "said",
    [
        f'{AT}FATAL:  password authentication failed for user "web"',
        f"{AT}FATAL:  no pg_hba.conf entry for host", f"{AT}fe_sendauth: no password supplied",
        f"{AT}SSL error: certificate verify failed", f"{AT}SSL error: sslv3 alert bad record",
        f"{AT}server does not support SSL, but SSL was required",
        'server certificate for "db" does not match host name "other"',
        'could not open certificate file "/x/host.crt": No such file or directory',
        'private key file "/x/host.key" has group or world access',
        f"{AT}session is read-only", f"{AT}FATAL:  the database system is starting up",
        f'{AT}FATAL:  database "fleet" does not exist', "something that nobody has seen yet", "",
        f"{AT}Connection refused\n{AT}FATAL:  too many connections for role",
    ],
)  # fmt: skip
def test_answer(said: str) -> None:
    """Whatever a server says, what is wrong here, and what is not known is no silence."""
    assert not is_silence(None, said)


@pytest.mark.parametrize("sqlstate", ["57014", "57P01", "42501", "53300", "08006", ""])
def test_code_of_a_server(sqlstate: str) -> None:
    """A server that sends a code has answered, whatever its words are."""
    assert not is_silence(sqlstate, "canceling statement due to statement timeout expired")
