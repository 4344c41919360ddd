# SPDX-License-Identifier: Apache-2.0
"""A verifier or a host program that is killed, at any of its system calls."""

import signal
import time
from pathlib import Path

from host_program import Host, HostError, Login, Status
from installed import PATIENCE, EndedAtStartError
from strained import Strained, straining
from sweep import Command, sweep, try_each
from system_calls import Place, places_of, read_places, tracing

pytest_plugins = ["strained_fixtures"]

REQUEST = "recvmsg"  # the first is the one that takes the request
VERDICT = r'"\1\202'  # as strace shows how its frame begins


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


def test_daemon_killed_while_it_commits(prefix: Path, tmp_path: Path) -> None:
    """Killed at any write, sync or message of a login, a daemon costs that login and no more."""
    trace = tmp_path / "daemon"
    with straining(prefix) as strained:
        with strained.root.daemon(tracing(trace)):
            assert strained.log_in().status == Status.SUCCESS
        wait_for_end(trace)
    for name in ("flock", "pwrite64", "fdatasync", "write", "sendto"):
        numbers = [place.number for place in places_of(trace, REQUEST, name, until=VERDICT)]
        # One more at either end: a daemon that follows a killed one does not start with the same
        # calls. The last of them are the verdict's own and what comes behind it.
        places = [Place(name, number) for number in range(min(numbers) - 1, max(numbers) + 3)]
        told = sweep(prefix, [kill_at(place) for place in places], log_in_by_daemon)
        assert told[Status.AUTHINFO_UNAVAIL] > 0, f"no login was under way at a {name}"


def wait_for_end(trace: Path) -> None:
    """Wait until strace, which runs beside the program, has written down its last call."""
    deadline = time.monotonic() + PATIENCE
    while "exit_group" not in trace.read_text("utf-8", "replace"):
        assert time.monotonic() < deadline, "strace did not come to its end"
        time.sleep(0.02)


def log_in_by_daemon(strained: Strained, command: Command) -> int:
    """Log in by a daemon that is killed, or on demand where that ended at its start."""
    try:
        with strained.root.daemon(command):
            return strained.log_in().status
    except EndedAtStartError:
        return strained.log_in().status
