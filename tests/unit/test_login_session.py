# SPDX-License-Identifier: Apache-2.0
"""Whether a login session comes over a network: the kernel's numbers, logind's files."""

import os
from pathlib import Path

import pytest

from pam_mfa.verifier import login_session
from pam_mfa.verifier.login_session import find_login
from pam_mfa.verifier.packets import Peer

PID, UNSET = 4321, "4294967295"


class Host:
    """Files as the kernel and logind have them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Start with one process of no session."""
        self._root = root
        for name in ("PROCESSES", "SESSIONS", "USERS"):
            (root / name).mkdir()
            monkeypatch.setattr(login_session, name, root / name)
        self.set_process()

    def set_process(self, session: str = UNSET, user: str = UNSET) -> None:
        """Give the process a session and a login user id."""
        directory = self._root / "PROCESSES" / str(PID)
        directory.mkdir(exist_ok=True)
        (directory / "sessionid").write_text(session, "ascii")
        (directory / "loginuid").write_text(user, "ascii")

    def add_session(self, name: str, *, remote: bool, kind: str = "user") -> None:
        """Have logind know a session."""
        text = f"# Private.\nUID=1000\nREMOTE={int(remote)}\nTYPE=tty\nCLASS={kind}\nBROKEN\n"
        (self._root / "SESSIONS" / name).write_text(text, "utf-8")

    def set_sessions(self, names: str) -> None:
        """Have logind know the user's sessions."""
        (self._root / "USERS" / "1000").write_text(f"NAME=alice\nSESSIONS={names}\n", "utf-8")


def is_remote(pid: int) -> bool:
    """Whether a process of this user's belongs to a login from another machine."""
    return login_session.is_remote(*find_login(Peer(pid, os.getuid())))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host of its own."""
    return Host(tmp_path, monkeypatch)


@pytest.mark.parametrize("remote", [True, False])
def test_session(host: Host, *, remote: bool) -> None:
    """A process in a session is where logind says that the session is."""
    host.set_process("3", "1000")
    host.add_session("3", remote=remote)
    assert remote == is_remote(PID)


def test_nothing_is_known(host: Host) -> None:
    """Without a session, without logind, or of a process that is gone, PAM's items decide alone."""
    assert not is_remote(PID)
    assert not is_remote(PID + 1)
    host.set_process("3", "1000")
    assert not is_remote(PID)


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [([], ["3"], True), (["c1"], ["3"], False), (["c1"], [], False), ([], [], False)],
)
def test_users_service_manager_is_no_way_around(
    host: Host, here: list[str], there: list[str], *, expected: bool
) -> None:
    """A program started by systemd-run is here only where a session of its user is."""
    host.set_process("9", "1000")
    host.add_session("9", remote=False, kind="manager")
    for name in here:
        host.add_session(name, remote=False)
    for name in there:
        host.add_session(name, remote=True)
    host.set_sessions(" ".join(here + there))
    assert expected == is_remote(PID)


@pytest.mark.parametrize("text", ["", "-1", "../3", "3\n4", "\u0663", UNSET])
def test_odd_session_number(host: Host, text: str) -> None:
    """A number that is none leads to no file."""
    host.add_session("3", remote=True)
    directory = login_session.PROCESSES / str(PID)
    (directory / "sessionid").write_text(text, "utf-8")
    assert not is_remote(PID)


def test_odd_files(host: Host) -> None:
    """Files that cannot be read, or say nothing, say nothing."""
    host.set_process("3", "1000")
    (login_session.SESSIONS / "3").write_bytes(b"REMOTE=1\nCLASS=\xff\n")
    (login_session.USERS / "1000").write_text("SESSIONS=../3 4\n", "utf-8")
    assert not is_remote(PID)


def test_login(host: Host) -> None:
    """As whom a process logged in, and its session, are the kernel's numbers of it."""
    peer = Peer(PID, os.getuid())
    assert (None, None) == find_login(peer)
    host.set_process("3", "1000")
    assert (1000, 3) == find_login(peer)
    host.set_process("3", UNSET)
    assert (None, 3) == find_login(peer)


def test_login_of_another_process(host: Host) -> None:
    """A process that has taken the number of one that is gone says nothing of that one."""
    host.set_process("3", "1000")
    assert (None, None) == find_login(Peer(PID, os.getuid() + 1))
    assert (None, None) == find_login(Peer(PID + 1, os.getuid()))
