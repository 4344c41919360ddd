# SPDX-License-Identifier: Apache-2.0
"""The guest itself. What fails here is a fault of the harness, never of the product."""

import socket
import subprocess
import time
from pathlib import Path

import pytest

from vm.guest import Guest

MINUTE = 60.0  # seconds; a loaded machine is slow to ask
CONNECT = "import socket, sys; socket.create_connection(('10.0.2.2', int(sys.argv[1])), 2)"


def test_input_and_output(guest: Guest) -> None:
    """A command gets its input whole, and what it prints and its status come back."""
    text = "".join(f"{number}\n" for number in range(100_000))
    done = guest.run("cat; echo said >&2; exit 7", stdin=text, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (text, "said\n", 7)


def test_failed_command_is_told(guest: Guest) -> None:
    """A command that fails raises an error that has with it what the command said."""
    with pytest.raises(subprocess.CalledProcessError) as failure:
        guest.run(["ls", "/no such file"])
    assert "/no such file" in failure.value.__notes__[0]


def test_arguments_are_not_shell(guest: Guest) -> None:
    """A command given as a list reaches its program as it is."""
    assert guest.output(["echo", "$HOME; 'x'", "*"]) == "$HOME; 'x' *"


def test_put(guest: Guest, tmp_path: Path) -> None:
    """A folder's content and a file become root's, at the given paths, with their modes."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/program").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "inner/program").chmod(0o750)
    guest.put(tmp_path, "/root/put/folder")
    guest.put(tmp_path / "inner/program", "/root/put/another name")
    assert guest.output("/root/put/folder/inner/program && '/root/put/another name'") == "ran\nran"
    assert guest.output("stat --format '%U %a' /root/put/folder/inner/program") == "root 750"


def test_clock(guest: Guest) -> None:
    """The guest's clock is the host's, and can be set."""
    assert abs(float(guest.output("date +%s")) - time.time()) < MINUTE
    moment = time.time() + 86400
    try:
        guest.set_clock(moment)
        assert 0 <= float(guest.output("date +%s.%N")) - moment < MINUTE
    finally:
        guest.set_clock(time.time())


def test_guest_reaches_nothing(guest: Guest) -> None:
    """The guest cannot connect to a port of its host, though it has an address there."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        tried = guest.run(["python3", "-c", CONNECT, port], check=False)
    assert tried.stderr.splitlines()[-1].startswith(("ConnectionRefusedError", "TimeoutError"))
