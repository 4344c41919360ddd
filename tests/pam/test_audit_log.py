# SPDX-License-Identifier: Apache-2.0
"""The audit log of real logins: who did it, where else it is told, rotation, full disks."""

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_records import read_all, require_chain
from authenticator import enroll
from host_program import Login, Status, attempt, run
from host_syslog import SyslogSocket
from installed import REPOSITORY, DataRoot
from journal_socket import JournalSocket
from login_crowd import Login as FastLogin
from login_crowd import answer, ask, connect, enable_everybody
from serving import DAEMON, each_way, serving, wait_until_gone

ROTATION = REPOSITORY / "packaging/logrotate.d/pam-mfa"
LOGROTATE = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin")


def records(root: DataRoot) -> list[dict[str, Any]]:
    """Return all records, the chain checked."""
    return require_chain(read_all(root.audit_log.parent))


@each_way
def test_everything_of_a_login(root: DataRoot, way: str) -> None:
    """A record says who asked, of what, by which program, and how long it took."""
    phone = enroll(root, "alice")
    with serving(root, way):
        assert attempt(root, "alice", phone.code()).status == Status.SUCCESS
    (record,) = root.audit()
    uid = int(Path("/proc/self/loginuid").read_text("ascii"))
    assert {
        "user": "alice", "service": "exact", "phase": "auth", "mode": "enforce", "version": 1,
        "caller_uid": 0, "login_uid": None if uid == 2**32 - 1 else uid,
        "device": {"name": "phone", "serial_number": phone.serial_number, "type": "virtual"},
        "program": "pam-mfad", "host": os.uname().nodename,
    } == {
        "program": record["process"]["program"],
        **{key: record.get(key) for key in ("user", "service", "phase", "mode", "version",
           "caller_uid", "login_uid", "device", "host")},
    }  # fmt: skip
    assert 0 <= record["duration_ms"] < 60_000
    wait_until_gone(root)
    records(root)


@pytest.mark.parametrize(("word", "key"), [("hash", "unknown_user"), ("name", "unknown_name")])
def test_unknown_users(root: DataRoot, word: str, key: str) -> None:
    """A name that no account has is a keyed hash in the log, unless policy wants the name."""
    root.policy.write_text(f"version: 1\naudit: {{unknown_users: {word}}}\n")
    attempt(root, "correct-horse", "123456")
    kept = root.audit_log.read_text("ascii")
    assert (word == "name") == ("correct-horse" in kept)
    assert {key} <= set(root.audit()[0])


def test_life_of_a_daemon(root: DataRoot) -> None:
    """A daemon records its start, each policy that it sees, and its end, which is signed."""
    with root.daemon():
        attempt(root, "alice", "123456")
        root.policy.write_text("version: 1\nmode: report-only\n")
        attempt(root, "alice", "123456")
        root.policy.write_text("version: 1\nmod: report-only\n")
        attempt(root, "alice", "123456")
    told = [(one["event_name"], one["reason"]) for one in records(root)]
    expected = [
        ("ChangePolicy", "policy_accepted"), ("StartVerifier", "started"), ("Checkpoint", "start"),
        ("ChangePolicy", "policy_accepted"), ("ChangePolicy", "policy_refused"),
        ("StopVerifier", "stopped"), ("Checkpoint", "requested"),
    ]  # fmt: skip
    assert expected == [one for one in told if one[0] != "VerifyMfa"]


def test_policy_that_refuses_everybody_is_recorded(root: DataRoot) -> None:
    """Where there is no daemon and the policy is broken, its record says why nobody gets in."""
    root.policy.write_text("version: 1\nmod: report-only\n")
    for _ in range(2):
        assert attempt(root, "alice", "123456").status == Status.AUTHINFO_UNAVAIL
    wait_until_gone(root)
    told = [one["reason"] for one in records(root) if one["event_name"] == "ChangePolicy"]
    assert told == ["policy_refused"]


@contextlib.contextmanager
def full_disk(root: DataRoot) -> Iterator[None]:
    """Have the log's disk be full, with the log in it."""
    place, kept = root.audit_log.parent, root.audit_log.read_bytes()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=2750,uid=pam-mfa,gid=adm", "tmpfs", place],
        check=True, timeout=30,
    )  # fmt: skip
    filler = place / "filler"
    try:
        root.audit_log.write_bytes(kept)
        shutil.chown(root.audit_log, "pam-mfa", "adm")
        root.audit_log.chmod(0o640)
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(512))
        with contextlib.suppress(OSError), root.audit_log.open("ab", buffering=0) as file:
            while True:  # what is left of the log's own last page
                file.write(b"\n")
        yield
        filler.unlink()
    finally:
        kept = root.audit_log.read_bytes()
        subprocess.run(["umount", "-l", place], check=True, timeout=30)
        root.audit_log.write_bytes(kept)


@each_way
@pytest.mark.parametrize("word", ["deny", "allow"])
def test_full_disk(root: DataRoot, way: str, word: str) -> None:
    """Where the log's disk is full nobody gets in, unless policy allows it; no record is lost."""
    root.policy.write_text(f"version: 1\naudit: {{on_failure: {word}}}\n")
    phone, tablet = enroll(root, "alice"), enroll(root, "alice", "tablet")
    expected = Status.SUCCESS if word == "allow" else Status.AUTHINFO_UNAVAIL
    with serving(root, way):
        with full_disk(root):
            assert attempt(root, "alice", phone.code()).status == expected
            wait_until_gone(root)
        assert attempt(root, "alice", tablet.code()).status == Status.SUCCESS
    wait_until_gone(root)
    lines = [line for line in read_all(root.audit_log.parent) if line != b"\n"]
    names = [
        one["device"]["name"] for one in map(json.loads, lines) if one["reason"] == "code_accepted"
    ]
    assert names[-1] == "tablet"
    assert names.count("phone") <= 1
    assert word == "deny" or "phone" in names


@pytest.fixture
def rotation(root: DataRoot) -> list[str]:
    """Return the command that rotates a root's log by the shipped file."""
    assert LOGROTATE, "logrotate is not installed"
    directory = root.path / "rotation"
    directory.mkdir()
    text = ROTATION.read_text("utf-8").replace("/var/log/pam_mfa", str(root.audit_log.parent))
    (directory / "conf").write_text(text)
    return [LOGROTATE, "--force", "--state", str(directory / "state"), str(directory / "conf")]


def test_rotation_under_load(root: DataRoot, rotation: list[str]) -> None:
    """The shipped logrotate file loses and doubles no record while everybody logs in."""
    people, told, is_over = enable_everybody(root), list[str](), threading.Event()

    def log_in(number: int) -> None:
        count = 0
        while not is_over.is_set():
            count += 1
            login = FastLogin(f"{people[number].name}-{count}", people[number])
            with connect(root) as connection:
                if ask(connection, login) and answer(connection, login):
                    told.append(login.terminal)

    with root.daemon():
        threads = [threading.Thread(target=log_in, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for round_ in range(6):
            target = len(told) + 10 * (round_ > 0)
            deadline = time.monotonic() + 60
            while len(told) < target and time.monotonic() < deadline:
                time.sleep(0.01)
            subprocess.run(rotation, check=True, timeout=60)
        is_over.set()
        for thread in threads:
            thread.join()
    found = records(root)
    accepted = sorted(one["tty"] for one in found if one["reason"] == "code_accepted")
    assert accepted == sorted(told)
    files = sorted(one.name for one in root.audit_log.parent.iterdir())
    rotated = ["audit.jsonl.1", *(f"audit.jsonl.{n}.gz" for n in range(2, 7))]
    assert files in (rotated, ["audit.jsonl", *rotated])
    assert "rotation" in {one["reason"] for one in found if one["event_name"] == "Checkpoint"}
    attempt(root, "nobody", "123456")  # the new log is made by the next record
    wait_until_gone(root)
    about = root.audit_log.stat()
    assert (about.st_mode & 0o7777, root.audit_log.owner(), root.audit_log.group()) == (
        0o640, "pam-mfa", "adm",
    )  # fmt: skip


# A private /dev and /run, mounted where the machine's programs do not see them.
PRIVATE = """set -e
for node in null zero random urandom; do
  : > "$1/$node"; mount --bind "/dev/$node" "$1/$node"
done
: > "$1/log"; mount --bind "$3" "$1/log"
mount --rbind "$1" /dev; mount --bind "$2" /run
shift 3; exec "$@"
"""


@contextlib.contextmanager
def private_logs(root: DataRoot) -> Iterator[tuple[list[str], SyslogSocket, JournalSocket]]:
    """Make a journal and a system log; yield the wrapper that gives a program these for its own."""
    devices, run_place = root.path / "private-dev", root.path / "private-run"
    devices.mkdir()
    (run_place / "systemd/journal").mkdir(parents=True)
    socket, log = run_place / "systemd/journal/socket", root.path / "private-log"
    with SyslogSocket(log) as syslog, JournalSocket(socket) as journal:
        wrapper = ["unshare", "--mount", "sh", "-c", PRIVATE, "sh"]
        yield [*wrapper, str(devices), str(run_place), str(log)], syslog, journal


def test_journal_and_syslog(root: DataRoot) -> None:
    """A login is read back from the journal, by its fields, and from the system log."""
    phone = enroll(root, "alice")
    with private_logs(root) as (wrapper, syslog, journal):
        login = Login(root, "alice", wrapper=wrapper)
        assert run(login, phone.code()).status == Status.SUCCESS
        wait_until_gone(root)
        entry = next(one for one in journal.entries() if one["PAM_MFA_EVENT_NAME"] == "VerifyMfa")
        (record,) = root.audit()
        assert (entry["PAM_MFA_EVENT_ID"], entry["PAM_MFA_USER"], entry["SYSLOG_IDENTIFIER"]) == (
            record["event_id"], "alice", "pam-mfad",
        )  # fmt: skip
        lines = [line for line in syslog.text().splitlines() if "VerifyMfa" in line]
        assert ["success code_accepted user=alice" in line for line in lines] == [True]
        assert phone.secret not in syslog.text()


@pytest.mark.parametrize("way", [DAEMON])
def test_two_daemons(root: DataRoot, way: str) -> None:
    """A second daemon of the same root does not start, and tears no chain."""
    phone = enroll(root, "alice")
    with serving(root, way):
        second = subprocess.run(
            [root.prefix / "bin/pam-mfad", "--root", root.path], check=False, timeout=60,
            capture_output=True,
        )  # fmt: skip
        assert second.returncode == 3
        assert attempt(root, "alice", phone.code()).status == Status.SUCCESS
    assert [sum(one["event_name"] == "StartVerifier" for one in records(root))] == [1]
