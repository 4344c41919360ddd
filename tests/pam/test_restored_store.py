# SPDX-License-Identifier: Apache-2.0
"""A store that goes away and comes back while the daemon runs: a restored backup, a late mount."""

import shutil
from pathlib import Path

from authenticator import enroll
from host_program import Status, attempt
from installed import DataRoot
from serving import wait_until_gone

FAULTS = 3  # the doctor's exit status


def copy_store(library: Path, copy: Path) -> None:
    """Copy the store, owners and modes as they are."""
    shutil.copytree(library, copy)
    for path in (library, *library.rglob("*")):
        about, twin = path.stat(), copy / path.relative_to(library)
        twin.chmod(about.st_mode & 0o7777)
        shutil.chown(twin, about.st_uid, about.st_gid)


def restore(library: Path) -> None:
    """Put a copy in the place of the store."""
    copy = library.with_name("restored")
    copy_store(library, copy)
    shutil.rmtree(library)
    copy.rename(library)


def test_restored_store_makes_no_code_good_twice(root: DataRoot) -> None:
    """What the daemon accepts after a restore is written to the new files, not the deleted ones."""
    phone = enroll(root, "alice")
    code, following = phone.code(), phone.code(1)
    with root.daemon():
        assert attempt(root, "alice", code).status == Status.SUCCESS
        restore(root.library)
        assert attempt(root, "alice", following).status == Status.SUCCESS
    with root.daemon():
        assert attempt(root, "alice", following).status == Status.AUTH_ERR
        assert attempt(root, "alice", code).status == Status.AUTH_ERR
    assert root.reasons()[:3] == ["code_accepted", "code_accepted", "code_reused"]


def test_two_verifiers_share_a_restored_store(root: DataRoot) -> None:
    """After a restore the daemon and a verifier on demand take turns by the same lock file."""
    phone = enroll(root, "alice")
    with root.daemon():
        assert attempt(root, "alice", phone.code()).status == Status.SUCCESS
        restore(root.library)
        root.command("unlock", "alice")
        assert attempt(root, "alice", phone.code(1)).status == Status.SUCCESS
    assert [record["event_name"] for record in root.audit("UnlockUser")] == ["UnlockUser"]
    assert root.reasons() == ["code_accepted", "code_accepted"]


def test_daemon_that_starts_without_its_store(root: DataRoot) -> None:
    """A daemon whose disk is not mounted yet refuses, and works when it is, without a restart."""
    phone = enroll(root, "alice")
    away = root.library.with_name("away")
    root.library.rename(away)
    with root.daemon():
        assert attempt(root, "alice", phone.code()).status == Status.AUTHINFO_UNAVAIL
        assert not root.library.exists()
        away.rename(root.library)
        assert attempt(root, "alice", phone.code()).status == Status.SUCCESS


def test_older_backup_lets_nobody_in_before_its_repair(root: DataRoot) -> None:
    """A code used since the backup is good with no verifier, and not after the repair either."""
    phone = enroll(root, "alice")
    backup = root.library.with_name("backup")
    copy_store(root.library, backup)
    code, following = phone.code(), phone.code(1)
    assert attempt(root, "alice", code).status == Status.SUCCESS
    wait_until_gone(root)
    shutil.rmtree(root.library)
    backup.rename(root.library)
    for _ in range(2):  # a refused attempt brings nothing into step
        assert attempt(root, "alice", code).status == Status.AUTHINFO_UNAVAIL
    with root.daemon():
        assert attempt(root, "alice", following).status == Status.AUTHINFO_UNAVAIL
        examined = root.command("doctor", check=False)
        assert (examined.returncode, "doctor --repair" in examined.stdout) == (FAULTS, True)
        repaired = root.command("doctor", "--repair", check=False)
        assert "It is rebuilt by the audit log" in repaired.stdout
        assert attempt(root, "alice", code).status == Status.AUTH_ERR
    wait_until_gone(root)
    assert attempt(root, "alice", code).status == Status.AUTH_ERR
    assert root.reasons()[0] == "code_accepted"
    assert root.reasons().count("code_accepted") == 1
