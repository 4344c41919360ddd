# SPDX-License-Identifier: Apache-2.0
"""The seal keys rotated under logins, by the installed programs: none is lost."""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from authenticator import enroll
from host_program import Host, Login, Status, attempt
from installed import DataRoot
from login_crowd import LOOK_AHEAD, Person, answer, ask, connect, start_verifier
from login_crowd import Login as CrowdLogin
from serving import each_way, serving

ROTATIONS = 3
PATIENCE = 120.0  # seconds
PEOPLE = 8
KILLS = 5


class Crowd:
    """People who log in all the time, half by the daemon; what was refused is kept."""

    def __init__(self, root: DataRoot, people: list[Person]) -> None:
        """Take the people."""
        self._root = root
        self._end = threading.Event()
        self.told: list[bool] = []
        self._threads = [
            threading.Thread(target=self._go, args=(person, number % 4 == 0))
            for number, person in enumerate(people)
        ]

    def _go(self, person: Person, is_on_demand: bool) -> None:  # noqa: FBT001 - a thread's
        number = 0
        while not self._end.is_set():
            number += 1
            self.told.append(self._log_in(CrowdLogin(f"{person.name}-{number}", person),
                                          is_on_demand=is_on_demand))  # fmt: skip

    def _log_in(self, login: CrowdLogin, *, is_on_demand: bool) -> bool:
        process = None
        if is_on_demand:
            connection, process = start_verifier(self._root)
        else:
            connection = connect(self._root)
        with connection:
            was_let_in = ask(connection, login) and answer(connection, login)
        if process is not None:
            process.wait()
        return was_let_in

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        """Have them log in while the block runs, and some time before and behind."""
        for thread in self._threads:
            thread.start()
        try:
            self.wait_for(len(self._threads))
            yield
            self.wait_for(len(self._threads))
        finally:
            self._end.set()
            for thread in self._threads:
                thread.join()

    def wait_for(self, logins: int) -> None:
        """Wait until so many more have ended."""
        goal, deadline = len(self.told) + logins, time.monotonic() + PATIENCE
        while len(self.told) < goal:
            assert time.monotonic() < deadline, "nobody logs in any more"
            time.sleep(0.01)


def enable_crowd(root: DataRoot) -> list[Person]:
    """Give people event-based devices, which have a code for every login, by one command."""
    root.policy.write_text(f"version: 1\nhotp: {{look_ahead: {LOOK_AHEAD}}}\n")
    people = [Person(number) for number in range(PEOPLE)]
    users = root.path / "users.oath"
    users.write_text("".join(f"HOTP/E {one.name} - {one.seed.hex()} 0\n" for one in people))
    users.chmod(0o600)
    root.command("import", "oath", str(users))
    return people


def used(root: DataRoot) -> str:
    """Return the name of the key that seals, of a ring that has no other."""
    ring = (root.library / "seal.key").read_text("ascii")
    assert len(re.findall("^key ", ring, re.MULTILINE)) == 1
    return ring.partition("\nused ")[2][:8]


def test_no_login_is_lost(root: DataRoot) -> None:
    """Under constant logins by daemon and on demand, rotation after rotation refuses nobody."""
    crowd, names = Crowd(root, enable_crowd(root)), []
    with root.daemon(), crowd.going():
        for _ in range(ROTATIONS):
            root.command("seal", "rotate")
            names.append(used(root))
            crowd.wait_for(4)
    assert (len(set(names)), crowd.told.count(False)) == (ROTATIONS, 0)
    assert "sealed:v1:" not in "".join(
        path.read_text() for path in (root.library / "devices").glob("*.yaml")
    )


@each_way
def test_rotated_at_the_prompt(root: DataRoot, way: str) -> None:
    """Who is at the prompt while the key is replaced and destroyed gets in by the code."""
    phone = enroll(root, "alice")
    with serving(root, way):
        host = Host(Login(root, "alice"))
        try:
            host.begin()
            assert host.question() is not None
            root.command("seal", "rotate")
            host.answer(phone.code())
            assert host.finish().status == Status.SUCCESS
        finally:
            host.kill()
        assert attempt(root, "alice", phone.code(1)).status == Status.SUCCESS


def test_killed_rotation(root: DataRoot) -> None:
    """Killed at any time, a rotation keeps nobody out; the next run ends it."""
    people = enable_crowd(root)
    program = str(root.prefix / "bin/pam-mfa")
    command = [program, "--root", str(root.path), "seal", "rotate"]
    before = time.monotonic()
    root.command("seal", "rotate")
    length, kills = time.monotonic() - before, 0
    with root.daemon():
        for number in range(KILLS):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(length * (number + 1) / KILLS)
            process.kill()
            kills += process.wait() == -signal.SIGKILL
            crowd_login = CrowdLogin(f"after-{number}", people[number])
            with connect(root) as connection:
                assert ask(connection, crowd_login)
                assert answer(connection, crowd_login)
        root.command("seal", "rotate")
    assert kills > 0
    assert used(root)


def test_no_key_is_told(root: DataRoot) -> None:
    """No key stands in what the commands print, in records, or in a process's arguments."""
    enroll(root, "alice")
    printed = root.command("seal", "rotate").stdout
    printed += root.command("seal", "status", "--json").stdout
    ring = (root.library / "seal.key").read_text("ascii")
    keys = re.findall(r"[0-9a-f]{64}", ring)
    told = printed + root.audit_log.read_text("ascii")
    assert (len(keys), [key for key in keys if key in told]) == (5, [])
    assert (root.library / "seal.key").stat().st_mode & 0o777 == 0o600


def test_fleet(root: DataRoot, prefix: Path) -> None:
    """A new key goes to the other host through a pipe before either seals by it."""
    other = DataRoot(prefix)
    try:
        first = root.command("seal", "export").stdout
        other.command("seal", "rotate", "--stage", "--from", "-", stdin=first)
        enroll(root, "alice")
        enroll(other, "bob")
        root.command("seal", "rotate", "--stage")
        exported = root.command("seal", "export").stdout
        other.command("seal", "rotate", "--stage", "--from", "-", stdin=exported)
        for step in ("--use", "--finish"):
            for host in (root, other):
                host.command("seal", "rotate", step)
        assert used(root) == used(other)
        alien = DataRoot(prefix)
        try:
            enroll(alien, "carol")
            refused = alien.command(
                "seal", "rotate", "--stage", "--from", "-", stdin=exported, check=False
            )
            assert refused.returncode == 1
            assert "another fleet" in refused.stderr
        finally:
            alien.remove()
    finally:
        other.remove()


@pytest.mark.parametrize("arguments", [("--from", "-"), ("--print",), ("--use", "--from", "-")])
def test_wrong_usage(root: DataRoot, arguments: tuple[str, ...]) -> None:
    """A ring goes with a step that takes one."""
    assert root.command("seal", "rotate", *arguments, check=False).returncode == 2


def test_ring_that_others_can_read(root: DataRoot, tmp_path: Path) -> None:
    """A ring is not taken from a file that others can read, or that is another user's."""
    path = tmp_path / "ring"
    path.write_text(root.command("seal", "export").stdout)
    for mode, owner in ((0o644, 0), (0o600, 1)):
        path.chmod(mode)
        os.chown(path, owner, owner)
        refused = root.command("seal", "rotate", "--stage", "--from", str(path), check=False)
        assert refused.returncode == 3
        assert str(path) in refused.stderr
