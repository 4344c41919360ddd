# SPDX-License-Identifier: Apache-2.0
"""What went wrong in other modules of this kind, tried on this one; named after the reports."""

import base64
import contextlib
import ctypes
import fcntl
import os
import pwd
import resource
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from authenticator import enroll
from host_program import Host, Login, Status, attempt, exact_service, run, running
from installed import DataRoot
from lying_verifier import lying, telling
from serving import DAEMON, ON_DEMAND, each_way, serving, wait_until_gone

NOBODY = 65534
IN_ALL_EVENTS = 0x00000FFF
ACCOUNT = "homely"
PRIVATE = 0o077
SETTLED = 0.2  # seconds after a login, when the daemon has closed its connection
PATIENCE = 5.0  # seconds


def allow_unenrolled(root: DataRoot) -> None:
    """Have users without a device let by."""
    text = root.policy.read_text("utf-8")
    changed = text.replace("unenrolled: deny", "unenrolled: allow")
    assert changed != text
    root.policy.write_text(changed, "utf-8")


# pam-u2f CVE-2025-23013: errors on the way to a decision ended in PAM_IGNORE.


def break_policy(root: DataRoot) -> None:
    """Leave no policy."""
    root.policy.unlink()


def break_state(root: DataRoot) -> None:
    """Make the state unusable."""
    (root.library / "state.db").write_bytes(os.urandom(4096))


def break_seal(root: DataRoot) -> None:
    """Take the seal key away."""
    (root.library / "seal.key").unlink()


def break_log(root: DataRoot) -> None:
    """Make the log unusable."""
    root.audit_log.unlink()
    root.audit_log.mkdir()


def break_store(root: DataRoot) -> None:
    """Take everything away, as where a disk is not mounted."""
    shutil.rmtree(root.library)


AT_START = [break_policy, break_seal]  # a daemon that runs has read them
RUNNING = [break_state, break_log, break_store]


@each_way
@pytest.mark.parametrize("mischief", [*AT_START, *RUNNING])
def test_cve_2025_23013_error_is_never_ignored(
    root: DataRoot, way: str, mischief: Callable[[DataRoot], None]
) -> None:
    """An error never ends in PAM_IGNORE or success, also where the unenrolled are let by."""
    phone = enroll(root, "alice")
    allow_unenrolled(root)
    if mischief in AT_START:
        mischief(root)
    with serving(root, ON_DEMAND if mischief is break_seal else way):  # no daemon starts then
        if mischief in RUNNING:
            mischief(root)
        for user in ("alice", "nobody"):
            assert attempt(root, user, phone.code()).status == Status.AUTHINFO_UNAVAIL


@pytest.mark.parametrize("most", range(4, 9))
def test_cve_2025_23013_lack_of_descriptors_is_never_ignored(root: DataRoot, most: int) -> None:
    """With hardly a descriptor left, a host is served or refused, never told PAM_IGNORE."""
    phone = enroll(root, "alice")
    host = Host(Login(root, "alice"))
    try:
        resource.prlimit(host.pid, resource.RLIMIT_NOFILE, (most, most))
        host.begin()
        status = host.finish([phone.wrong_code()]).status
    finally:
        host.kill()
    assert status in {Status.AUTHINFO_UNAVAIL, Status.AUTH_ERR}


def test_cve_2025_23013_lack_of_memory_is_never_ignored(root: DataRoot) -> None:
    """A host that can allocate no more is refused."""
    enroll(root, "alice")
    host = Host(Login(root, "alice"))
    try:
        used = int(Path(f"/proc/{host.pid}/statm").read_text("ascii").split()[0])
        most = used * resource.getpagesize()
        resource.prlimit(host.pid, resource.RLIMIT_AS, (most, most))
        resource.prlimit(host.pid, resource.RLIMIT_DATA, (0, 0))
        host.begin()
        assert host.finish(["123456"]).status in {Status.AUTHINFO_UNAVAIL, Status.AUTH_ERR}
    finally:
        host.kill()


def test_cve_2025_23013_session_error_is_never_ignored(root: DataRoot) -> None:
    """An error in the session phase is PAM_SESSION_ERR."""
    root.policy.unlink()
    assert run(Login(root, "alice", phases="session")).status == Status.SESSION_ERR


def test_cve_2025_23013_empty_user_is_refused(root: DataRoot) -> None:
    """A host that names no user is refused before any verifier is asked."""
    with lying(root, telling(1)) as verifier:
        assert run(Login(root, ""), "").status != Status.SUCCESS
    assert verifier.requests == []


# pam-u2f CVE-2019-12209: a debug file was opened through a link.


@pytest.mark.parametrize("name", [
    "log/pam_mfa/audit.jsonl", "lib/pam_mfa/state.db", "lib/pam_mfa/commit.lock",
    "lib/pam_mfa/seal.key",
])  # fmt: skip
def test_cve_2019_12209_no_link_is_followed(root: DataRoot, name: str) -> None:
    """A link in the place of a file of ours is not followed: its target stays as it was."""
    phone = enroll(root, "alice")
    victim = root.path / "victim"
    victim.write_text("untouched", "ascii")
    shutil.chown(victim, "pam-mfa", "pam-mfa")
    path = root.path / "var" / name
    path.unlink()
    path.symlink_to(victim)
    service = exact_service(root, "debug")
    outcome = run(Login(root, "alice", service), phone.code())
    assert outcome.status == Status.AUTHINFO_UNAVAIL
    assert victim.read_text("ascii") == "untouched"


def test_cve_2019_12209_debug_writes_no_file(root: DataRoot) -> None:
    """With debug nothing is written but the files that are written without."""
    phone = enroll(root, "alice")
    service = exact_service(root, "debug")
    before = sorted(root.path.rglob("*"))
    assert run(Login(root, "alice", service), phone.code()).status == Status.SUCCESS
    wait_until_gone(root)
    assert sorted(root.path.rglob("*")) == before


# pam-u2f CVE-2019-12210: descriptors leaked into the host and its children.


def require_no_more(pid: int, before: int) -> None:
    """See that a process comes to have no more descriptors than it had."""
    deadline = time.monotonic() + PATIENCE
    while (now := len(list(Path(f"/proc/{pid}/fd").iterdir()))) > before:
        assert time.monotonic() < deadline, f"{now} descriptors are open, not {before}"
        time.sleep(0.05)


def test_cve_2019_12210_daemon_keeps_no_descriptor(root: DataRoot) -> None:
    """After many logins, good and bad, the daemon has as many descriptors open as after one."""
    phone = enroll(root, "alice")
    with root.daemon() as daemon:
        attempt(root, "alice", phone.wrong_code())
        time.sleep(SETTLED)
        before = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
        for number in range(40):
            with running(Login(root, "alice")) as host:
                host.question()
                if number % 2:
                    host.finish([phone.wrong_code()])
        attempt(root, "nobody", "123456")
        require_no_more(daemon.pid, before)


@pytest.mark.parametrize("spoil", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/")])
def test_cve_2019_12210_bad_file_keeps_no_descriptor(
    root: DataRoot, spoil: Callable[[Path], object]
) -> None:
    """A device file that is refused leaves no descriptor open in the daemon."""
    enroll(root, "alice")
    path = root.device_file("alice")
    path.unlink()
    spoil(path)
    with root.daemon() as daemon:
        attempt(root, "alice", "123456")
        time.sleep(SETTLED)
        before = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
        for _ in range(10):
            attempt(root, "alice", "123456")
        require_no_more(daemon.pid, before)


# pam-u2f CVE-2020-24612: an unreadable device file switched the second factor off.


@each_way
@pytest.mark.parametrize("mode", [0o000, 0o200, 0o644])
def test_cve_2020_24612_unreadable_file_keeps_mfa_on(root: DataRoot, way: str, mode: int) -> None:
    """A device file made unreadable refuses its user, also where the unenrolled are let by."""
    phone = enroll(root, "alice")
    allow_unenrolled(root)
    with serving(root, way):
        assert attempt(root, "nobody").status == Status.IGNORE
        root.device_file("alice").chmod(mode)
        outcome = attempt(root, "alice", phone.code(), phone.code(), phone.code(1))
    assert outcome.status == Status.AUTH_ERR
    assert root.reasons()[-1] == "devices_unreadable"


@each_way
def test_cve_2020_24612_unreadable_directory_keeps_mfa_on(root: DataRoot, way: str) -> None:
    """Where the devices cannot be seen at all nobody counts as unenrolled."""
    phone = enroll(root, "alice")
    allow_unenrolled(root)
    with serving(root, way):
        (root.library / "devices").chmod(0)
        for user in ("alice", "nobody"):
            outcome = attempt(root, user, phone.code(), phone.code(), phone.code(1))
            assert outcome.status in {Status.AUTH_ERR, Status.AUTHINFO_UNAVAIL}


@each_way
def test_cve_2020_24612_missing_directory_keeps_mfa_on(root: DataRoot, way: str) -> None:
    """Where the devices' directory is gone, as before a mount, nobody counts as unenrolled."""
    phone = enroll(root, "alice")
    allow_unenrolled(root)
    with serving(root, way):
        (root.library / "devices").rename(root.library / "moved")
        for user in ("alice", "nobody"):
            outcome = attempt(root, user, phone.code(), phone.code(), phone.code(1))
            assert outcome.status in {Status.AUTH_ERR, Status.AUTHINFO_UNAVAIL}


# Google Authenticator PAM CVE-2012-6140: users could read their seeds.


def read_as_nobody(path: Path) -> bytes:
    """Return what cat says when an ordinary user reads a file."""
    tried = subprocess.run(
        ["cat", path], check=False, capture_output=True,
        user=NOBODY, group=NOBODY, extra_groups=[], timeout=30,
    )  # fmt: skip
    return tried.stderr


def test_cve_2012_6140_users_cannot_read_what_we_keep(root: DataRoot) -> None:
    """Seeds, state and log are out of every user's reach, while the daemon runs and after."""
    phone = enroll(root, "nobody")
    with serving(root, DAEMON):
        attempt(root, "nobody", phone.code())
        kept = [root.library, *root.library.rglob("*"), *root.audit_log.parent.iterdir()]
        assert len(kept) >= 7
        for path in kept:
            assert b"Permission denied" in read_as_nobody(path)
        modes = {path: path.stat().st_mode for path in [root.library, *root.library.rglob("*")]}
    modes.pop(root.library / "audit.pub")  # a public key, made to be copied
    assert [path for path, mode in modes.items() if stat.S_IMODE(mode) & PRIVATE] == []


def test_cve_2012_6140_no_seed_in_the_clear(root: DataRoot) -> None:
    """No file holds a seed, in base32 or in bytes."""
    phone = enroll(root, "alice")
    attempt(root, "alice", phone.code())
    raw = base64.b32decode(phone.secret)
    for path in root.path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert phone.secret.encode() not in data
            assert raw not in data


# pam_oath CVE-2013-7322: a comment in the file kept a used code from being stored.


@each_way
def test_cve_2013_7322_comment_keeps_no_code_good(root: DataRoot, way: str) -> None:
    """With comments anywhere in the device file a used code stays used."""
    phone = enroll(root, "alice")
    path = root.device_file("alice")
    lines = path.read_text("utf-8").splitlines()
    commented = "".join(f"# alice\n{line}  # comment\n" for line in lines)
    path.write_text(f"{commented}# end", "utf-8")
    with serving(root, way):
        code = phone.code()
        assert attempt(root, "alice", code).status == Status.SUCCESS
        assert attempt(root, "alice", code).status == Status.AUTH_ERR
    assert root.reasons()[:2] == ["code_accepted", "code_reused"]


# pam_oath CVE-2024-47191: a file in the user's home was opened as root.


@contextlib.contextmanager
def watched(directory: Path) -> Iterator[Callable[[], bytes]]:
    """Give a function that returns what the kernel saw anybody do in a directory (inotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert descriptor >= 0
    assert libc.inotify_add_watch(descriptor, os.fsencode(directory), IN_ALL_EVENTS) >= 0

    def seen() -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(descriptor, 4096)
        return b""

    try:
        yield seen
    finally:
        os.close(descriptor)


def make_home(root: DataRoot) -> list[str]:
    """Make a home full of traps; return a wrapper in which an account has it."""
    home = root.path / "home"
    home.mkdir()
    for name in (".pam_mfa", ".pam-mfa", ".google_authenticator", ".pam_environment", ".config"):
        (home / name).symlink_to("/etc/shadow")
    os.mkfifo(home / ".oath")
    os.chown(home, NOBODY, NOBODY)
    passwd = root.path / "passwd"
    line = f"{ACCOUNT}:x:{NOBODY}:{NOBODY}::{home}:/bin/sh\n"
    passwd.write_text(Path("/etc/passwd").read_text("utf-8") + line, "utf-8")
    passwd.chmod(0o644)
    mount = f'mount --bind {passwd} /etc/passwd; exec "$0" "$@"'
    return ["unshare", "--mount", "sh", "-ec", mount]


def test_cve_2024_47191_nothing_in_the_home_is_opened(root: DataRoot) -> None:
    """Module and verifier, root's or not, touch nothing in the home of who logs in."""
    phone = enroll(root, ACCOUNT)
    wrapper = make_home(root)
    with watched(root.path / "home") as seen:
        login = Login(root, ACCOUNT, phases="auth,session", wrapper=wrapper)
        assert run(login, phone.code()).prompts != []
        assert seen() == b""
        list((root.path / "home").iterdir())
        assert seen() != b""  # the watch works
    assert root.audit()[-1]["user"] == ACCOUNT


# Whoever may read a log may lock it.


@each_way
def test_lock_on_the_log_holds_nobody_up(root: DataRoot, way: str) -> None:
    """A member of the log's group that holds a lock on it keeps nobody from logging in."""
    phone = enroll(root, "alice")
    with root.audit_log.open("rb") as log, serving(root, way):
        fcntl.flock(log, fcntl.LOCK_EX)
        outcome = attempt(root, "alice", phone.code())
    assert outcome.status == Status.SUCCESS
    assert outcome.seconds < 5
    reader = root.audit_log.stat()
    assert reader.st_gid != pwd.getpwnam("pam-mfa").pw_gid
    assert stat.S_IMODE(reader.st_mode) == 0o640
