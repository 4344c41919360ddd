# SPDX-License-Identifier: Apache-2.0
"""The service that accepts petitions: limits, late processes, its end. The desk is a stand-in.

The server runs in a process of its own, since it takes that one's signals.
"""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles import REPOSITORY

from pam_mfa.self_service.server import LIMITS

# A process of a petition: says what it was given, then waits for a packet.
DESK = """\
import socket, sys
assert sys.flags.isolated
connection = socket.socket(fileno=int(sys.argv[2]))
connection.send(" ".join(sys.argv[1:2] + sys.argv[3:]).encode())
connection.recv(100)
"""
SERVER = """\
import os, socket, sys
from pam_mfa.self_service import server
path, desk, patches = sys.argv[1:]
exec(patches)
sys.argv = [desk]
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(path)
listener.listen(64)
print("ready", flush=True)
server.serve_until_stopped(listener, "/some/root", idle=idle)
print(f"ended, {len(os.listdir('/proc/self/fd'))} descriptors")
"""
FOR_EVER, HURRIED = "idle = None", "idle = None; server._TURN = 0.05; "


class Service:
    """The server's process and connections to it."""

    def __init__(self, place: Path, patches: str) -> None:
        """Start it and wait until it listens."""
        desk = place / "desk.py"
        desk.write_text(DESK)
        self._path = place / "socket"
        command = [sys.executable, "-c", SERVER, str(self._path), str(desk), patches]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        assert self.process.stdout is not None
        assert "ready\n" == self.process.stdout.readline()
        self._connections: list[socket.socket] = []

    def connect(self) -> socket.socket:
        """Connect."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(20)
        connection.connect(str(self._path))
        self._connections.append(connection)
        return connection

    def end(self) -> str:
        """Tell it to end; return what it said last."""
        self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate(timeout=20)
        return said

    def close(self) -> None:
        """End everything."""
        for connection in self._connections:
            connection.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory whose name leaves room for a socket's."""
    return tmp_path


@pytest.fixture
def service(place: Path) -> Iterator[Service]:
    """A server that ends when it is told to."""
    made = Service(place, FOR_EVER)
    yield made
    made.close()


def is_turned_away(connection: socket.socket) -> bool:
    """Whether a connection is closed without a word."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_petition_has_a_process(service: Service) -> None:
    """Each petition is served by this very program, which is told its root."""
    assert b"--serve --root /some/root" == service.connect().recv(100)


def test_limit_of_one_user(service: Service) -> None:
    """A user has two petitions at a time, and another one when one of them has ended."""
    served = [service.connect() for _ in range(LIMITS.connections_each or 0)]
    assert all(connection.recv(100) for connection in served)
    assert is_turned_away(service.connect())
    served[0].close()
    while is_turned_away(again := service.connect()):
        pass
    assert again.fileno() >= 0


def test_turning_away_leaves_nothing(service: Service) -> None:
    """However many are turned away, no process and no descriptor of theirs is left."""
    served = [service.connect() for _ in range(2)]
    assert all(connection.recv(100) for connection in served)
    for _ in range(50):
        assert is_turned_away(service.connect())
    for connection in served:
        connection.close()
    assert "ended" in (said := service.end())
    assert int(said.split()[1]) < 12


def test_descriptor_that_lingers_holds_nobody_up(service: Service) -> None:
    """Who is turned away with a TCP connection that blocks its closer delays nobody else."""
    served = [service.connect() for _ in range(2)]
    assert all(connection.recv(100) for connection in served)
    os.kill(service.process.pid, signal.SIGSTOP)  # so that all of them wait to be accepted
    kept = [send_lingering(service.connect()) for _ in range(4)]
    last = service.connect()
    last.settimeout(LINGER_SECONDS / 5)
    os.kill(service.process.pid, signal.SIGCONT)
    assert is_turned_away(last)
    for each in kept:
        each.close()


LINGER_SECONDS = 25


def send_lingering(connection: socket.socket) -> socket.socket:
    """Send a TCP connection along whose peer never reads; return the peer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    with client:
        client.setblocking(False)
        try:
            while True:
                client.send(bytes(65536))
        except BlockingIOError:
            pass
        linger = (1).to_bytes(4, sys.byteorder) + LINGER_SECONDS.to_bytes(4, sys.byteorder)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        socket.send_fds(connection, [b"junk"], [client.fileno()])
    return peer


def test_late_process_is_ended(place: Path) -> None:
    """A petition's process that stays beyond its time is killed."""
    service = Service(place, HURRIED + "server.LONGEST = server._OVERTIME = 0.1")
    connection = service.connect()
    connection.recv(100)
    assert is_turned_away(connection)
    service.close()


def test_process_that_may_not_be_killed_ends_not_the_service(place: Path) -> None:
    """Where the service may not kill a late process, which is not root any more, it goes on."""
    refuse = textwrap.dedent("""
        def kill(process):
            print("not permitted", flush=True)
            raise PermissionError
        server.subprocess.Popen.kill = kill
    """)
    service = Service(place, f"{HURRIED}server.LONGEST = server._OVERTIME = 0\n{refuse}")
    late = service.connect()
    assert late.recv(100)
    assert service.process.stdout is not None
    assert "not permitted\n" == service.process.stdout.readline()
    assert service.connect().recv(100)
    late.close()
    service.close()


def test_idle_service_ends(place: Path) -> None:
    """A service that systemd starts again on demand ends when nobody comes, and not before."""
    service = Service(place, "idle = 0.2; server._TURN = 0.05")
    connection = service.connect()
    assert connection.recv(100)
    with pytest.raises(subprocess.TimeoutExpired):
        service.process.wait(0.6)
    connection.close()
    assert 0 == service.process.wait(20)
    service.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end(service: Service, number: signal.Signals) -> None:
    """It ends when it is told to, and a petition under way comes to its end."""
    connection = service.connect()
    assert connection.recv(100)
    service.process.send_signal(number)
    assert 0 == service.process.wait(20)
    connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.recv(100)
