# SPDX-License-Identifier: Apache-2.0
"""Where a process is: the kernel's own files of this very process, and made ones."""

import os
import subprocess
from pathlib import Path

import pytest

from pam_mfa.mfa_age import Spot
from pam_mfa.verifier import login_session, process_spot
from pam_mfa.verifier.process_spot import locate


class Processes:
    """Processes as the kernel's files have them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Start with none, and with no logind."""
        self._root = root / "proc"
        self._root.mkdir()
        self.sessions = root / "sessions"
        (root / "boot_id").write_text("boot\n", "ascii")
        monkeypatch.setattr(login_session, "PROCESSES", self._root)
        monkeypatch.setattr(login_session, "SESSIONS", self.sessions)
        monkeypatch.setattr(process_spot, "BOOT_ID", root / "boot_id")

    def add(  # noqa: PLR0913, PLR0917 - what the kernel says of a process
        self, pid: int, parent: int, leader: int, start: int, uid: int = 0, sid: str = "4294967295"
    ) -> None:
        """Add a process whose name is made to mislead."""
        folder = self._root / str(pid)
        folder.mkdir(exist_ok=True)
        fields = [str(pid), "(a) S 7 7 (7)", "S", parent, pid, leader, *[0] * 15, start, 0]
        (folder / "stat").write_text(" ".join(map(str, fields)), "ascii")
        (folder / "status").write_text(f"Name:\tx\nUid:\t{uid}\t0\t0\t0\n", "ascii")
        (folder / "sessionid").write_text(sid, "ascii")
        (folder / "loginuid").write_text("1000" if sid != "4294967295" else sid, "ascii")


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Processes:
    """Processes of a host of its own: sudo in Alice's shell."""
    made = Processes(tmp_path, monkeypatch)
    made.add(30, 20, 20, 300, sid="7")
    made.add(20, 1, 20, 200, 1000, sid="7")
    made.add(1, 0, 1, 1)
    return made


def test_this_process() -> None:
    """Of a process of this host the kernel tells all that is asked for, the same each time."""
    spot = locate(os.getpid())
    assert spot.process.startswith(f"{os.getpid()}:")
    assert spot.boot
    assert spot == locate(os.getpid())


def test_process_that_is_gone() -> None:
    """Of a process that has ended nothing is known."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert Spot() == locate(ended.pid)
    assert Spot() == locate(0)


def test_sudo(processes: Processes) -> None:
    """A process is told by its start, its audit session and its leader."""
    del processes
    assert Spot("30:300", "", "7", 1000, "20:200", 1000, "boot", is_personal=True) == locate(30)


def test_parent_of_root(processes: Processes) -> None:
    """A parent is told where it is root's."""
    processes.add(20, 1, 20, 200, 0)
    assert ("20:200", 0) == (locate(30).parent, locate(30).leader_uid)


def test_no_audit_session(processes: Processes) -> None:
    """Without an audit session its number and user are not known."""
    processes.add(30, 20, 20, 300)
    assert ("", None, "20:200") == (locate(30)[2], locate(30).login_uid, locate(30).leader)


@pytest.mark.parametrize(("kind", "expected"), [("user", True), ("manager", False), ("", False)])
def test_service_manager(processes: Processes, kind: str, *, expected: bool) -> None:
    """Where logind tells of sessions, one that is no person's is not taken for one."""
    processes.sessions.mkdir()
    if kind:
        (processes.sessions / "7").write_text(f"CLASS={kind}\nREMOTE=0\n", "ascii")
    assert expected == locate(30).is_personal


def test_leader_that_is_gone(processes: Processes) -> None:
    """A session whose leader has ended is led by nobody."""
    processes.add(30, 20, 19, 300)
    assert ("", None) == (locate(30).leader, locate(30).leader_uid)


def test_number_used_again(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the number becomes another process's meanwhile, nothing is known."""
    real = login_session.read_number

    def read(path: str) -> str | None:
        processes.add(30, 20, 20, 301, sid="8")
        return real(path)

    monkeypatch.setattr(login_session, "read_number", read)
    assert Spot() == locate(30)


def test_started_again(processes: Processes) -> None:
    """A number used again is another process."""
    before = locate(30)
    processes.add(30, 20, 20, 301, sid="7")
    assert before.process != locate(30).process


def test_session_that_a_container_was_started_in(processes: Processes) -> None:
    """Where the first process has it too, an audit session is everybody's, and so nobody's."""
    processes.add(1, 0, 1, 1, sid="7")
    assert not locate(30).is_personal
