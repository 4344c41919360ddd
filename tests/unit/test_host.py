# SPDX-License-Identifier: Apache-2.0
"""What a host says of its accounts and services, from files under a root."""

import os
import pwd
from pathlib import Path

import pytest

from pam_mfa.host import Account, Accounts, is_login_shell, read_services

SHELLS = "# /etc/shells\n/bin/sh\n/bin/bash # the usual\n\n/usr/sbin/nologin\n"


def write(root: Path, name: str, text: str) -> None:
    """Write a file under a root."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


def passwd(*entries: str) -> str:
    """Return a passwd file of names and shells, user ids from 1000 on."""
    pairs = [entry.split(" ") for entry in entries]
    return "".join(f"{name}:x:{1000 + n}:9::/h:{shell}\n" for n, (name, shell) in enumerate(pairs))


@pytest.mark.parametrize(
    ("shell", "with_shells", "without"),
    [
        ("/bin/bash", True, True),
        ("", True, True),
        ("/bin/sync", False, True),
        ("/usr/sbin/nologin", False, False),
        ("/sbin/nologin", False, False),
        ("/bin/false", False, False),
        ("/bin/bash ", False, True),
    ],
)
def test_login_shell(shell: str, with_shells: bool, without: bool) -> None:  # noqa: FBT001
    """One logs in by a shell if it is empty, or listed where there is a list; never nologin."""
    listed = {"/bin/sh", "/bin/bash", "/usr/sbin/nologin"}
    assert (with_shells, without) == (is_login_shell(shell, listed), is_login_shell(shell, None))


def test_accounts_of_a_root(tmp_path: Path) -> None:
    """Another root's accounts are those of its own passwd file, by its own list of shells."""
    write(tmp_path, "etc/passwd", passwd("alice /bin/bash", "bin /usr/sbin/nologin", "sync /x"))
    write(tmp_path, "etc/shells", SHELLS)
    accounts = Accounts(tmp_path)
    assert (True, ["alice"]) == (accounts.are_known, list(accounts.names()))
    assert (Account("alice", 1000, True), Account("bin", 1001, False), None) == (
        accounts.find("alice"), accounts.find("bin"), accounts.find("root"),
    )  # fmt: skip


def test_no_accounts(tmp_path: Path) -> None:
    """Under a root without a passwd file nothing is known of accounts."""
    accounts = Accounts(tmp_path)
    assert (False, [], None) == (
        accounts.are_known, list(accounts.names()), accounts.find("root"),
    )  # fmt: skip


def test_odd_lines_of_passwd(tmp_path: Path) -> None:
    """Lines that are no account's are passed over, and of two of one name the first counts."""
    lines = [
        "", "+", "short:x:1", ":x:1:1::/:/bin/sh", "word:x:one:1::/:/bin/sh",
        "twice:x:5:1::/:", "twice:x:6:1::/:", "\udcff:x:7:1::/:", "=x:x:8:1::/:",
    ]  # fmt: skip
    write(tmp_path, "etc/passwd", "\n".join(lines) + "\n")
    accounts = Accounts(tmp_path)
    found = accounts.find("twice")
    assert found is not None
    assert (5, ["twice", "\udcff", "=x"]) == (found.uid, list(accounts.names()))


def test_accounts_of_this_host() -> None:
    """The host's own accounts are those of its name service."""
    accounts = Accounts(Path("/"))
    found = accounts.find(pwd.getpwuid(0).pw_name)
    assert found is not None
    assert (True, 0) == (accounts.are_known, found.uid)


@pytest.mark.parametrize("name", ["no-such-account", "", "a\0b", "\udcff", "x" * 5000])
def test_no_account_of_this_host(name: str) -> None:
    """A name that no account has is found to have none, whatever stands in it."""
    assert Accounts(Path("/")).find(name) is None


def test_services(tmp_path: Path) -> None:
    """Services are read by name from both directories, the first one's file in front."""
    for name in ("etc/pam.d/sshd", "usr/lib/pam.d/sshd", "usr/lib/pam.d/cron"):
        write(tmp_path, name, f"auth required /{name.partition('/')[0]}/a.so\n")
    found = {one.name: one.lines[0].module for one in read_services(tmp_path)}
    assert {"cron": "/usr/a.so", "sshd": "/etc/a.so"} == found


def test_files_that_are_no_services(tmp_path: Path) -> None:
    """Parts that services include, and what editors and packages leave behind, are none."""
    for name in ("common-auth", "system-auth", ".x", "sshd~", "sshd.dpkg-old", "sudo"):
        write(tmp_path, f"etc/pam.d/{name}", "auth required a.so\n")
    assert ["sudo"] == [one.name for one in read_services(tmp_path)]


def test_includes_of_a_root(tmp_path: Path) -> None:
    """What a service includes, by an absolute path as well, is looked for under the root."""
    write(tmp_path, "etc/pam.d/s", "@include /etc/pam.d/common-x\nauth include y\n")
    write(tmp_path, "etc/pam.d/common-x", "auth required x.so\n")
    write(tmp_path, "usr/lib/pam.d/y", "auth required y.so\n")
    (service,) = (one for one in read_services(tmp_path) if one.name == "s")
    assert ["x.so", "y.so"] == [line.module for line in service.lines]


@pytest.mark.parametrize("kind", ["fifo", "directory", "dangling link", "unreadable bytes"])
def test_odd_service_files(tmp_path: Path, kind: str) -> None:
    """A file of another kind, or of any bytes, is told or read and ends nothing."""
    write(tmp_path, "etc/pam.d/good", "auth required a.so\n")
    path = tmp_path / "etc/pam.d/odd"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    else:
        path.write_bytes(b"auth required \xff\xfe.so\n")
    good, odd = read_services(tmp_path)
    assert (["a.so"], kind == "unreadable bytes") == (
        [line.module for line in good.lines], not odd.faults,
    )  # fmt: skip


def test_no_services(tmp_path: Path) -> None:
    """Under a root without PAM there is none."""
    assert [] == read_services(tmp_path)
