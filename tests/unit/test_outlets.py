# SPDX-License-Identifier: Apache-2.0
"""The journal, the system log and the kernel's trail: told of each record, and never waited for."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles import make_event

from pam_mfa.audit import Event, EventName, Head, Origin, Outcome, Reason, format_event
from pam_mfa.audit.kernel_trail import KernelTrail
from pam_mfa.audit.outlets import MESSAGE_ID, Outlets
from pam_mfa.errors import BrokenSystemError
from pam_mfa.policy import AuditRules

ALL = AuditRules(journal=True, syslog=True)
FORGED = "x\nPRIORITY=0\n<0>Jan  1 sshd[1]: Accepted"


class Ends:
    """What listens on both sockets."""

    def __init__(self, place: Path) -> None:
        """Listen as journald and a syslog daemon do."""
        self.place = place
        self.journal = self.listen("journal", socket.SOCK_DGRAM)
        self.syslog = self.listen("syslog", socket.SOCK_DGRAM)
        self.told: list[str] = []
        self.outlets = Outlets(str(place / "journal"), str(place / "syslog"))

    def listen(self, name: str, kind: socket.SocketKind) -> socket.socket:
        """Bind a socket of a kind."""
        (self.place / name).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, kind)
        listener.bind(str(self.place / name))
        listener.settimeout(10)
        return listener

    def send(self, *events: Event, rules: AuditRules = ALL) -> None:
        """Tell the outlets of records."""
        origin = Origin("host.example", 99, "pam-mfad")
        self.outlets.follow(lambda: rules, lambda error: self.told.append(str(error)))
        self.outlets.send(
            [format_event(event, "0123456789abcdef", origin, Head()) for event in events]
        )

    def entry(self) -> dict[str, str]:
        """Return the fields of the journal's next entry."""
        lines = self.journal.recv(65536).decode("ascii").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def line(self) -> str:
        """Return the system log's next line."""
        return self.syslog.recv(65536).decode("ascii")

    def is_silent(self, listener: socket.socket) -> bool:
        """Whether nothing waits."""
        listener.setblocking(False)
        try:
            listener.recv(65536)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    """Outlets, and who listens to them."""
    ends = Ends(tmp_path)
    yield ends
    ends.outlets.close()
    ends.journal.close()
    ends.syslog.close()


def test_journal(ends: Ends) -> None:
    """An entry has a readable message and each field of the record under its own name."""
    ends.send(make_event("alice", rhost="192.0.2.7", tty="ssh"))
    entry = ends.entry()
    expected = {
        "MESSAGE_ID": MESSAGE_ID, "PRIORITY": "4", "SYSLOG_FACILITY": "10",
        "SYSLOG_IDENTIFIER": "pam-mfad", "SYSLOG_PID": "99", "PAM_MFA_EVENT_NAME": "VerifyMfa",
        "PAM_MFA_USER": "alice", "PAM_MFA_RHOST": "192.0.2.7", "PAM_MFA_PROCESS_PID": "99",
        "PAM_MFA_SEQUENCE": "1", "PAM_MFA_OUTCOME": "denied",
    }  # fmt: skip
    assert expected == {key: entry[key] for key in expected}
    assert entry["MESSAGE"].startswith("VerifyMfa denied wrong_code user=alice phase=auth tty=ssh")


def test_syslog(ends: Ends) -> None:
    """A line is readable, of authpriv, and says who wrote it."""
    ends.send(make_event("alice"))
    line = ends.line()
    assert line.startswith("<84>")  # 10 * 8 + 4: authpriv, warning
    assert "pam-mfad[99]: VerifyMfa denied wrong_code user=alice phase=auth" in line


@pytest.mark.parametrize(("outcome", "number"), [("success", 86), ("denied", 84), ("error", 83)])
def test_priority(ends: Ends, outcome: str, number: int) -> None:
    """A success is an information, a denial a warning, what is broken an error."""
    ends.send(make_event()._replace(outcome=Outcome(outcome)))
    assert (str(number - 80), f"<{number}>") == (ends.entry()["PRIORITY"], ends.line()[:4])


@pytest.mark.parametrize("name", [FORGED, "\0", "é", "\udcff", 'a"b', "\x1b[2J", "\x7f", "\u2028"])
def test_forged_names(ends: Ends, name: str) -> None:
    """A name that looks like another field, line or program stays inside its field."""
    ends.send(make_event(name))
    data, line = ends.journal.recv(65536), ends.line()
    names = [one.split(b"=")[0] for one in data.splitlines()]
    assert (True, 1, 1) == (data.isascii(), names.count(b"PRIORITY"), len(line.splitlines()))
    assert all(" " <= character <= "~" for character in line)


@pytest.mark.parametrize("is_on", [True, False])
def test_switches(ends: Ends, is_on: bool) -> None:  # noqa: FBT001
    """Each outlet can be switched off."""
    ends.send(make_event(), rules=AuditRules(journal=is_on, syslog=not is_on))
    silent = (ends.is_silent(ends.journal), ends.is_silent(ends.syslog))
    assert (not is_on, is_on) == silent


def test_one_log(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where journald is the system log, too, it has the record once."""
    monkeypatch.setattr("pam_mfa.audit.outlets._JOURNAL_ROOM", str(ends.place))
    ends.send(make_event())
    assert (False, True) == (ends.is_silent(ends.journal), ends.is_silent(ends.syslog))


def test_nobody_listens(ends: Ends) -> None:
    """Where there is neither, nothing happens."""
    for name in ("journal", "syslog"):
        (ends.place / name).unlink()
    ends.send(make_event())
    assert [] == ends.told


def test_dead_listener(ends: Ends) -> None:
    """Where a daemon was started again, the next record is sent to the new one."""
    ends.send(make_event())
    ends.syslog.close()
    ends.syslog = ends.listen("syslog", socket.SOCK_DGRAM)
    ends.send(make_event("bob"))
    assert "user=bob" in ends.line()


def test_slow_listeners(ends: Ends) -> None:
    """Who does not read is not waited for; what was dropped is counted, and told when it reads."""
    start = time.monotonic()
    ends.send(*[make_event()] * 3000)
    assert time.monotonic() - start < 30  # a wait would be for ever
    taken = 0
    while not ends.is_silent(ends.syslog):
        taken += 1
    ends.syslog.settimeout(10)
    ends.send(make_event("late"))
    line = ends.line()
    assert 0 < taken < 3000
    assert line.endswith(f" dropped_before={3000 - taken}")


def test_stream(ends: Ends) -> None:
    """A system log that takes a stream, as some do, has each message with a NUL behind it."""
    ends.syslog.close()
    ends.syslog = ends.listen("syslog", socket.SOCK_STREAM)
    ends.syslog.listen()
    ends.send(make_event("a"), make_event("b"))
    accepted, _ = ends.syslog.accept()
    with accepted:
        parts = accepted.recv(65536).split(b"\0")
    assert (3, b"") == (len(parts), parts[2])
    assert (b"user=a " in parts[0], b"user=b " in parts[1]) == (True, True)


class Library:
    """libaudit's calls, answered as a test wants them."""

    def __init__(self, result: int = 1, gate: threading.Event | None = None) -> None:
        """Take what a record is answered, and what is waited for before."""
        self.result, self.gate = result, gate
        self.sent: list[tuple[Any, ...]] = []

    def audit_open(self) -> int:
        """Return a descriptor."""
        return os.dup(0)

    def audit_close(self, descriptor: int) -> None:
        """Close it."""
        os.close(descriptor)

    def audit_log_acct_message(self, *arguments: Any) -> int:  # noqa: ANN401 - libaudit's
        """Take a record."""
        if self.gate is not None:
            self.gate.wait(10)
        self.sent.append(arguments)
        return self.result


def trail_record(**fields: object) -> dict[str, Any]:
    """Return a record as the trail is given it."""
    line = format_event(make_event("alice"), "id", Origin("h", 1, "p"), Head())
    return {**json.loads(line), **fields}


def test_kernel() -> None:
    """A verification is one AUDIT_USER_AUTH record; what is none is not sent."""
    library, told = Library(), list[BrokenSystemError]()
    trail = KernelTrail(told.append, lambda _: library)
    trail.put(trail_record(outcome="success", source_address="192.0.2.7", tty="ssh"))
    trail.put(trail_record(event_name="ChangePolicy"))
    trail.put({key: value for key, value in trail_record().items() if key != "user"})
    trail.close()
    sent = [(one[1], one[3], one[4], one[7], one[8], one[9]) for one in library.sent]
    expected = [
        (1100, b"pam_mfa:verify", b"alice", b"192.0.2.7", b"ssh", 1),
        (1100, b"pam_mfa:verify", b"(unknown)", None, None, 0),
    ]
    assert (expected, []) == (sent, told)


def test_terminal_forges_no_field() -> None:
    """A terminal's name that would begin a field of the kernel's record is left out."""
    library = Library()
    trail = KernelTrail(None, lambda _: library)
    trail.put(trail_record(tty="pts/0 res=success"))
    trail.close()
    assert [None] == [one[8] for one in library.sent]


def test_kernel_that_refuses() -> None:
    """Where the kernel takes no record the trail is off, which is said once."""
    library, told = Library(result=-1), list[str]()
    trail = KernelTrail(lambda error: told.append(str(error)), lambda _: library)
    for _ in range(5):
        trail.put(trail_record())
    trail.close()
    trail.put(trail_record())
    assert (1, 1) == (len(library.sent), len(told))


def test_kernel_without_library() -> None:
    """Where there is no libaudit the trail is off, which is said once."""
    told: list[str] = []

    def load(name: str) -> object:
        raise OSError(name)

    trail = KernelTrail(lambda error: told.append(str(error)), load)
    trail.close()
    trail.put(trail_record())
    assert 1 == len(told)


def test_kernel_that_hangs() -> None:
    """A kernel that makes its sender wait holds up nobody; what is too much is dropped and told."""
    gate, told = threading.Event(), list[str]()
    library = Library(gate=gate)
    trail = KernelTrail(lambda error: told.append(str(error)), lambda _: library)
    start = time.monotonic()
    for _ in range(3000):
        trail.put(trail_record())
    assert time.monotonic() - start < 5
    gate.set()
    trail.close()
    assert 3000 == len(library.sent) + sum(int(text.split()[0]) for text in told)
    assert told


def test_every_kind_of_record(ends: Ends) -> None:
    """Whatever a record tells of, both have it; nothing of it is lost on the way."""
    for name in EventName:
        ends.send(Event(name, Outcome.SUCCESS, Reason.REQUESTED, 0.0))
        assert (name.value, True) == (ends.entry()["PAM_MFA_EVENT_NAME"], name.value in ends.line())
