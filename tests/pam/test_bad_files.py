# SPDX-License-Identifier: Apache-2.0
"""Files that are not as they must be: whoever they concern is refused, and it is said which."""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from authenticator import Authenticator, enroll
from host_program import ALL_PROMPTS, PROMPT, Status, attempt
from installed import DataRoot
from serving import DAEMON, each_way, serving, wait_until_gone

NOBODY = 65534
SECRET = re.compile(r"secret: *(\S+)")
TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:]+Z")
BILLION_LAUGHS = "\n".join(
    ["version: 1", "user: alice", "a0: &a0 [x, x]"]
    + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    + ["devices: *a39", ""]
)
Spoil = Callable[[Path], None]


def rewrite(change: Callable[[str], str]) -> Spoil:
    """Return what changes a file's text in place."""

    def spoil(path: Path) -> None:
        before = path.read_text("utf-8")
        after = change(before)
        assert after != before
        path.write_text(after, "utf-8")

    return spoil


def keep_link(path: Path) -> None:
    """Put a symbolic link to the file in the file's place."""
    moved = path.with_name(f"{path.name}.moved")
    path.rename(moved)
    path.symlink_to(moved)


def make_directory(path: Path) -> None:
    """Put a directory in a file's place."""
    path.unlink()
    path.mkdir()


def dangle(path: Path) -> None:
    """Put a symbolic link to nothing in a file's place."""
    path.unlink()
    path.symlink_to("/nonexistent")


def make_fifo(path: Path) -> None:
    """Put a fifo in a file's place."""
    path.unlink()
    os.mkfifo(path)


def write(make: Callable[[bytes], bytes]) -> Spoil:
    """Return what changes a file's bytes in place."""

    def spoil(path: Path) -> None:
        path.write_bytes(make(path.read_bytes()))

    return spoil


def double_device(text: str) -> str:
    """List the one device a second time."""
    head, _, device = text.partition("devices:\n")
    return f"{head}devices:\n{device}{device}"


def other_version(text: str) -> str:
    """Change the document's version."""
    return text.replace("version: 1", "version: 2")


UNREADABLE: dict[str, Spoil] = {
    "symbolic link": keep_link,
    "dangling link": dangle,
    "directory": make_directory,
    "fifo": make_fifo,
    "readable by others": lambda path: path.chmod(0o644),
    "readable by the group": lambda path: path.chmod(0o640),
    "writable by others": lambda path: path.chmod(0o602),
    "not readable to us": lambda path: path.chmod(0o000),
    "root's": lambda path: os.chown(path, 0, 0),
    "another user's": lambda path: os.chown(path, NOBODY, NOBODY),
    "10 MB": rewrite(lambda text: text + "#" * 10_000_000),
    "not UTF-8": write(lambda data: data + b"# \xff\n"),
    "a NUL byte": rewrite(lambda text: text + "\0"),
    "empty": write(lambda _: b""),
    "cut": rewrite(lambda text: text[: len(text) // 2]),
    "no YAML": rewrite(lambda text: text + "]["),
    "nested a thousand deep": rewrite(lambda text: text + "x: " + "[" * 1000 + "]" * 1000),
    "nested without end": rewrite(lambda text: text + "x: " + "[" * 60000),
    "nested by dashes": rewrite(lambda text: text + "x:\n " + "- " * 30000),
    "aliases": rewrite(lambda _: BILLION_LAUGHS),
    "an alias": rewrite(lambda text: text.replace("name: phone", "name: &a phone\n  x: *a")),
    "unknown version": rewrite(other_version),
    "unknown key": rewrite(lambda text: text + "extra: 1\n"),
    "wrong tag": rewrite(lambda text: text.replace("type: virtual", "type: !!bool virtual")),
    "time out of range": rewrite(lambda text: TIME.sub("0001-01-01T00:00:00+14:00", text)),
    "key twice": rewrite(lambda text: text + "version: 1\n"),
    "second document": rewrite(lambda text: text + "---\nversion: 1\n"),
    "device twice": rewrite(double_device),
    "sms device": rewrite(lambda text: text.replace("type: virtual", "type: sms")),
    "object": rewrite(lambda text: text + "x: !!python/object/apply:os.system [id]\n"),
    "seed in the clear": rewrite(lambda text: SECRET.sub("secret: JBSWY3DPEHPK3PXP", text)),
    "seed changed": rewrite(lambda text: SECRET.sub(lambda m: f"{m[0][:-6]}AAAAA=", text)),
}


def require_refused(root: DataRoot, phone: Authenticator, detail: str) -> None:
    """Log in with a right code: the usual prompts, a denial, and a record that names the file."""
    outcome = attempt(root, phone.user, phone.code(), phone.code(), phone.code(1))
    assert (outcome.status, outcome.prompts) == (Status.AUTH_ERR, ALL_PROMPTS)
    record = root.audit()[-1]
    assert (record["outcome"], record["reason"]) == ("error", "devices_unreadable")
    assert detail in record["detail"]


@pytest.mark.parametrize("how", UNREADABLE)
def test_unreadable_device_file_refuses_its_user(root: DataRoot, how: str) -> None:
    """A device file that cannot be trusted refuses its user, by name, and nobody else."""
    alice, bob = enroll(root, "alice"), enroll(root, "bob")
    path = root.device_file("alice")
    UNREADABLE[how](path)
    named = alice.serial_number if how.startswith("seed") else str(path)
    with serving(root, DAEMON):
        require_refused(root, alice, named)
        assert attempt(root, "bob", bob.code()).status == Status.SUCCESS


def test_unreadable_device_file_refuses_on_demand(root: DataRoot) -> None:
    """A verifier started on demand says the same of a device file that it cannot trust."""
    alice = enroll(root, "alice")
    UNREADABLE["readable by others"](root.device_file("alice"))
    require_refused(root, alice, str(root.device_file("alice")))


def test_restored_device_file_counts_again(root: DataRoot) -> None:
    """Once its mode is right again a device file counts, without a restart."""
    alice = enroll(root, "alice")
    with serving(root, DAEMON):
        root.device_file("alice").chmod(0o644)
        require_refused(root, alice, "0644")
        root.device_file("alice").chmod(0o600)
        assert attempt(root, "alice", alice.code()).status == Status.SUCCESS


def test_copied_device_file_lends_no_device(root: DataRoot) -> None:
    """Another user's device file under one's own name lets nobody in by that device."""
    alice, mallory = enroll(root, "alice"), enroll(root, "mallory")
    shutil.copyfile(root.device_file("alice"), root.device_file("mallory"))
    require_refused(root, mallory, str(root.device_file("mallory")))
    assert attempt(root, "mallory", alice.code()).status == Status.AUTH_ERR


@pytest.mark.parametrize("rename", [False, True])
def test_copied_seed_opens_for_nobody_else(root: DataRoot, rename: bool) -> None:  # noqa: FBT001
    """A sealed seed from another device's entry, its serial number copied or not, is no seed."""
    alice, mallory = enroll(root, "alice"), enroll(root, "mallory")
    path = root.device_file("mallory")
    text = root.device_file("alice").read_text("utf-8")
    found = SECRET.search(text)
    assert found is not None
    changed = SECRET.sub(f"secret: {found[1]}", path.read_text("utf-8"))
    own = mallory.serial_number
    if rename:
        changed, own = changed.replace(own, alice.serial_number), alice.serial_number
    path.write_text(changed, "utf-8")
    require_refused(root, mallory, own)
    assert attempt(root, "mallory", alice.code()).status == Status.AUTH_ERR


def test_one_broken_device_leaves_the_others(root: DataRoot) -> None:
    """A device whose seed does not open leaves the user's other devices usable."""
    phone, tablet = enroll(root, "alice"), enroll(root, "alice", "tablet")
    path = root.device_file("alice")
    path.write_text(SECRET.sub("secret: sealed:v1:AAAA", path.read_text("utf-8"), count=1), "utf-8")
    assert attempt(root, "alice", phone.code()).status == Status.AUTH_ERR
    assert attempt(root, "alice", tablet.code()).status == Status.SUCCESS
    assert phone.serial_number in root.audit()[-1]["detail"]


POLICIES: dict[str, Spoil] = {
    "missing": Path.unlink,
    "empty": write(lambda _: b""),
    "no YAML": rewrite(lambda text: text + "]["),
    "not UTF-8": write(lambda data: data + b"# \xff\n"),
    "unknown key": rewrite(lambda text: text.replace("unenrolled:", "unenroled:")),
    "unknown word": rewrite(lambda text: text.replace("enforce\n", "enforced\n")),
    "unknown version": rewrite(other_version),
    "wrong tag": rewrite(lambda text: text.replace("mode: ", "mode: !!bool ")),
    "aliases": rewrite(lambda _: BILLION_LAUGHS),
    "nested without end": rewrite(lambda text: text + "x: " + "[" * 60000),
    "10 MB": rewrite(lambda text: text + "#" * 10_000_000),
    "writable by the group": lambda path: path.chmod(0o664),
    "writable by others": lambda path: path.chmod(0o646),
    "another user's": lambda path: os.chown(path, NOBODY, NOBODY),
    "symbolic link": keep_link,
    "directory": make_directory,
    "fifo": make_fifo,
}


@each_way
@pytest.mark.parametrize("how", POLICIES)
def test_broken_policy_at_the_start_refuses_everybody(root: DataRoot, way: str, how: str) -> None:
    """Without a policy that can be used nobody is let in, and account and session not either."""
    phone = enroll(root, "alice")
    POLICIES[how](root.policy)
    with serving(root, way):
        outcome = attempt(root, "alice", phone.code())
    assert (outcome.status, outcome.prompts) == (Status.AUTHINFO_UNAVAIL, [])


@pytest.mark.parametrize("how", POLICIES)
def test_policy_broken_later_leaves_the_old_one(root: DataRoot, how: str) -> None:
    """A policy that breaks while the daemon runs keeps the old in force; a mended one is read."""
    phone = enroll(root, "alice")
    good = root.policy.read_text("utf-8")
    with serving(root, DAEMON):
        outcome = attempt(root, "alice", *[phone.wrong_code()] * 9)
        assert outcome.prompts == ALL_PROMPTS
        POLICIES[how](root.policy)
        assert attempt(root, "alice", phone.code()).status == Status.SUCCESS
        mend(root.policy, good.replace("prompts: 3", "prompts: 1"))
        outcome = attempt(root, "alice", *[phone.wrong_code()] * 9)
        assert outcome.prompts == [PROMPT]


def mend(path: Path, text: str) -> None:
    """Put a good file in the place of whatever is there."""
    if path.is_dir():
        path.rmdir()
    draft = path.with_suffix(".new")
    draft.write_text(text, "utf-8")
    draft.replace(path)


def test_policy_mended_after_a_broken_start_is_read(root: DataRoot) -> None:
    """A daemon that started with a broken policy serves as soon as it is mended."""
    phone = enroll(root, "alice")
    good = root.policy.read_text("utf-8")
    root.policy.write_text("mode: [", "utf-8")
    with serving(root, DAEMON):
        assert attempt(root, "alice", phone.code()).status == Status.AUTHINFO_UNAVAIL
        root.policy.write_text(good, "utf-8")
        assert attempt(root, "alice", phone.code()).status == Status.SUCCESS


@contextlib.contextmanager
def small_disk(root: DataRoot) -> Iterator[Path]:
    """Have devices, state and log on a file system of 1 MB."""
    path = root.path / "var"
    path.mkdir(exist_ok=True)
    options = "size=1m,mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield path
    finally:
        wait_until_gone(root)
        subprocess.run(["umount", path], check=True)


def fill(disk: Path) -> None:
    """Take all room that is left on a disk; ``filler`` holds it."""
    with (disk / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


@each_way
def test_full_disk_refuses(root: DataRoot, way: str) -> None:
    """On a full disk a right code lets nobody in; nothing is lost, and with room it goes on."""
    with small_disk(root) as disk:
        phone = enroll(root, "alice")
        with serving(root, way):
            assert attempt(root, "alice", phone.code()).status == Status.SUCCESS
            for _ in range(3):
                wait_until_gone(root)
                fill(disk)
                assert attempt(root, "alice", phone.code(1)).status == Status.AUTHINFO_UNAVAIL
            (disk / "filler").unlink()
            check_whole(root, phone)


@pytest.mark.parametrize("is_right", [True, False])
def test_read_only_disk_refuses(root: DataRoot, is_right: bool) -> None:  # noqa: FBT001
    """On a disk that takes no writing no code is judged: right and wrong ones end alike."""
    with small_disk(root) as disk:
        phone = enroll(root, "alice")
        assert attempt(root, "alice", phone.code()).status == Status.SUCCESS
        wait_until_gone(root)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        code = phone.code(1) if is_right else phone.wrong_code()
        assert attempt(root, "alice", code).status == Status.AUTHINFO_UNAVAIL
        wait_until_gone(root)
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        check_whole(root, phone)


def check_whole(root: DataRoot, phone: Authenticator) -> None:
    """See that every record is there, used codes stay used, and the next code lets in."""
    assert root.reasons()[0] == "code_accepted"
    assert len(root.audit("EnableMfaDevice")) == 1
    assert attempt(root, "alice", phone.code()).status == Status.AUTH_ERR
    assert attempt(root, "alice", phone.code(1)).status == Status.SUCCESS
    assert root.reasons().count("code_accepted") == 2


LOGS: dict[str, Spoil] = {
    "symbolic link": keep_link,
    "root's": lambda path: os.chown(path, 0, 0),
    "another user's": lambda path: os.chown(path, NOBODY, NOBODY),
    "writable by others": lambda path: path.chmod(0o666),
    "directory": make_directory,
    "fifo": make_fifo,
    "no directory": lambda path: shutil.rmtree(path.parent),
}


@each_way
@pytest.mark.parametrize("how", LOGS)
def test_log_that_cannot_be_trusted_refuses(root: DataRoot, way: str, how: str) -> None:
    """Where a record cannot be written, a right code lets nobody in."""
    phone = enroll(root, "alice")
    with serving(root, way):
        LOGS[how](root.audit_log)
        assert attempt(root, "alice", phone.code()).status == Status.AUTHINFO_UNAVAIL


@each_way
def test_login_counts_again_after_the_log_was_mended(root: DataRoot, way: str) -> None:
    """Once the log can be written, a code that could not be judged before lets in."""
    phone = enroll(root, "alice")
    with serving(root, way):
        os.chown(root.audit_log, 0, 0)
        assert attempt(root, "alice", phone.code()).status == Status.AUTHINFO_UNAVAIL
        shutil.chown(root.audit_log, "pam-mfa")
        assert attempt(root, "alice", phone.code(), phone.code(1)).status == Status.SUCCESS
    assert root.reasons()[-1] == "code_accepted"


STATES: dict[str, Spoil] = {
    "garbage": write(lambda _: os.urandom(8192)),
    "symbolic link": keep_link,
    "directory": make_directory,
    "root's": lambda path: os.chown(path, 0, 0),
    "of a later version": lambda path: _sqlite(path, "PRAGMA user_version = 99"),
    "without its tables": lambda path: _sqlite(path, "DROP TABLE lock_state"),
}


def _sqlite(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(statement)


@each_way
@pytest.mark.parametrize("how", STATES)
def test_broken_state_refuses(root: DataRoot, way: str, how: str) -> None:
    """Where the state cannot be used, no code lets anybody in."""
    phone = enroll(root, "alice")
    STATES[how](root.library / "state.db")
    with serving(root, way):
        outcome = attempt(root, "alice", phone.code(), phone.code(1))
    assert outcome.status == Status.AUTHINFO_UNAVAIL


KEYS: dict[str, Spoil] = {
    "missing": Path.unlink,
    "empty": write(lambda _: b""),
    "short": write(lambda data: data[:-1]),
    "long": write(lambda data: data + b"x"),
    "readable by others": lambda path: path.chmod(0o644),
    "another user's": lambda path: os.chown(path, NOBODY, NOBODY),
    "symbolic link": keep_link,
}


@pytest.mark.parametrize("how", KEYS)
def test_broken_seal_key_refuses(root: DataRoot, how: str) -> None:
    """Without the seal key as it was nobody is let in, and no new key takes its place."""
    phone = enroll(root, "alice")
    path = root.library / "seal.key"
    KEYS[how](path)
    assert attempt(root, "alice", phone.code()).status == Status.AUTHINFO_UNAVAIL
    assert path.exists() == (how != "missing")
