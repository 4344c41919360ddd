# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa audit`` as installed: as root, by the log's group, and beside a daemon that goes on."""

import contextlib
import grp
import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pexpect
from installed import DataRoot

READER = 65_500  # a user id that no account has


def run_as_reader(root: DataRoot, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``pam-mfa audit`` as a user who is in the log's group and nothing else."""
    return subprocess.run(
        [root.prefix / "bin/pam-mfa", "--root", root.path, "audit", *arguments],
        user=READER, group=READER, extra_groups=[grp.getgrnam("adm").gr_gid],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def owners(folders: Sequence[Path]) -> set[tuple[str, int, int]]:
    """Return names, owners and modes of all files."""
    paths = [path for folder in folders for path in folder.rglob("*")]
    return {(str(path), path.stat().st_uid, path.stat().st_mode) for path in paths}


def test_as_root(root: DataRoot) -> None:
    """Root verifies the log against the state, and leaves nothing behind of root's."""
    root.enroll("alice")
    root.enroll("bob")
    folders = (root.library, root.audit_log.parent)
    before = owners(folders)
    done = root.command("audit", "verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert "not compared" not in done.stdout
    assert before == owners(folders)


def test_cut_log(root: DataRoot) -> None:
    """Root finds by the state alone that the log's last records were cut off."""
    root.enroll("alice")
    root.enroll("bob")
    lines = root.audit_log.read_bytes().splitlines(keepends=True)
    os.truncate(root.audit_log, len(b"".join(lines[:-1])))
    done = root.command("audit", "verify", "--json", check=False)
    assert done.returncode == 1
    assert [one["kind"] for one in json.loads(done.stdout)["findings"]] == ["truncated"]


def test_as_the_logs_group(root: DataRoot) -> None:
    """Who is in the log's group reads and verifies it, and is told what only root could compare."""
    root.enroll("alice")
    shown = run_as_reader(root, "show", "--user", "alice", "--json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [one["event_name"] for one in json.loads(shown.stdout)] == ["EnableMfaDevice"]
    done = run_as_reader(root, "verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert "only root may ask it" in done.stdout


def test_by_nobody_else(root: DataRoot) -> None:
    """Who is not in the group may not read the log."""
    root.enroll("alice")
    done = subprocess.run(
        [root.prefix / "bin/pam-mfa", "--root", root.path, "audit", "show"],
        user=READER, group=READER, extra_groups=[], capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be read" in done.stderr


def test_follow_on_a_terminal(root: DataRoot) -> None:
    """Records are shown as they are written, over a rotation, and Ctrl-C ends it without a word."""
    root.enroll("alice")
    command = [str(root.prefix / "bin/pam-mfa"), "--root", str(root.path), "audit", "follow"]
    child = pexpect.spawn(command[0], command[1:], encoding="utf-8", timeout=30)
    log = root.audit_log
    while str(log) not in opened_by(child.pid):
        assert child.isalive()
        time.sleep(0.02)
    for user in ("bob", "carol"):
        root.enroll(user)
        child.expect(f"EnableMfaDevice  success: requested  user {user}  ")
        log.rename(log.with_name("audit.jsonl.1"))
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "Aborted" not in (child.before or "")


def opened_by(process: int | None) -> set[str]:
    """Return the names of files that a process has open."""
    names = set()
    for one in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            names.add(str(one.readlink()))
    return names
