# SPDX-License-Identifier: Apache-2.0
"""A verifier or a host program that is killed, at any of its system calls."""

import contextlib
import signal
from pathlib import Path

from host_program import Host, HostError, Login, Status
from installed import EndedAtStartError
from strained import Strained
from sweep import Command, sweep, try_each
from system_calls import Place, read_places, tracing

pytest_plugins = ["strained_fixtures"]

REQUEST = "recvmsg"  # the first is the one that takes the request


def test_verifier_killed_anywhere(prefix: Path, calls: Path) -> None:
    """Killed at any system call, a verifier costs that login and nothing else."""
    places = read_places(calls, REQUEST)
    assert len(places) > 100
    told = try_each(prefix, [place.killed() for place in places])
    assert set(told) == {Status.SUCCESS, Status.AUTHINFO_UNAVAIL}
    assert told[Status.AUTHINFO_UNAVAIL] > told[Status.SUCCESS] > 0


def test_host_killed_anywhere(prefix: Path, tmp_path: Path) -> None:
    """Killed at any system call of the module, a host leaves its verifier nothing to spoil."""
    trace = tmp_path / "host"
    told = sweep(prefix, [tracing(trace)], kill_host)
    assert told == {Status.SUCCESS: 1}
    places = read_places(trace, "AF_UNIX, SOCK_SEQPACKET", "F_GETFD")  # host.c's look at itself
    assert len(places) > 20
    told = sweep(prefix, [kill_at(place) for place in places], kill_host)
    assert told[Status.AUTHINFO_UNAVAIL] > len(places) / 2


def kill_at(place: Place) -> Command:
    """Return the command that kills the host, and not the verifier that it starts."""
    return [word for word in place.killed() if word != "-f"]


def kill_host(strained: Strained, command: Command) -> int:
    """Log in by a host that is killed; whoever is killed is told nothing."""
    host = Host(Login(strained.root, "alice", wrapper=command))
    try:
        host.begin()
        return host.finish([strained.code()]).status
    except HostError:
        assert host.wait() == -signal.SIGKILL
        return Status.AUTHINFO_UNAVAIL
    finally:
        host.kill()


def test_daemon_killed_while_it_commits(strained: Strained) -> None:
    """Killed at any write or sync before its verdict, a daemon costs that login and no more."""
    killed = 0
    for name in ("pwrite64", "fdatasync", "write", "sendto"):
        for number in range(1, 40):
            if log_in_by_daemon(strained, Place(name, number)) == Status.SUCCESS:
                break
            killed += 1
    assert killed > 10


def log_in_by_daemon(strained: Strained, place: Place) -> int:
    """Log in by a daemon that is killed at a place; return the status, a success if it was not."""
    before = strained.accepted()
    status: int = Status.AUTHINFO_UNAVAIL
    # It writes at its start, too: that it has started stands in the log.
    with contextlib.suppress(EndedAtStartError), strained.root.daemon(place.killed()):
        status = strained.log_in().status
    strained.require_whole(before, was_let_in=status == Status.SUCCESS)
    return status
