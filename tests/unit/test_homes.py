# SPDX-License-Identifier: Apache-2.0
"""Files in users' homes: where they are looked for, and what is not read whatever a user does."""

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from pam_mfa.errors import RefusedError, UnsafeFileError
from pam_mfa.importing import homes
from pam_mfa.importing.google_authenticator import FILE_NAME, SIZE_MAX
from pam_mfa.importing.homes import (
    Account,
    expand_template,
    find_account,
    list_accounts,
    read_secret_files,
)

GOOD = b'ORSXG5DTMVRXEZLUNBSXEZLUNBQQ\n" TOTP_AUTH\n'
SECRETIVE = "root:$6$salt$hash:19000:0:99999:7:::\n"


def account_of(home: Path, user: str = "alice") -> Account:
    """Return an account of this process's user."""
    return Account(user, os.geteuid(), os.getegid(), str(home))


def read(account: Account, template: str = f"~/{FILE_NAME}") -> homes.SecretFiles:
    """Read one account's secret file."""
    path = expand_template(template, account)
    assert path is not None
    return read_secret_files([(account.user, account, path)])


def put(path: Path, data: bytes = GOOD, mode: int = 0o400) -> Path:
    """Make a file."""
    path.write_bytes(data)
    path.chmod(mode)
    return path


def make_link(path: Path) -> None:
    """Make a link to another's secrets."""
    target = put(path.with_name("shadow"), SECRETIVE.encode())
    path.symlink_to(target)


def make_link_to_good(path: Path) -> None:
    """Make a link to a sound file."""
    path.symlink_to(put(path.with_name("other")))


def make_fifo(path: Path) -> None:
    """Make a fifo, which nobody writes to."""
    os.mkfifo(path, 0o400)


def make_giant(path: Path) -> None:
    """Make a sound file that is too large."""
    put(path, GOOD + b"\n" * SIZE_MAX)


def make_readable(path: Path) -> None:
    """Make a file that everybody reads."""
    put(path, mode=0o444)


def make_writable(path: Path) -> None:
    """Make a file that others write."""
    put(path, mode=0o620)


def make_somebody_elses(path: Path) -> None:
    """Make a file that is no secret file."""
    put(path, SECRETIVE.encode())


def test_read(tmp_path: Path) -> None:
    """A user's own file is read, and is left as it is."""
    path = put(tmp_path / FILE_NAME)
    before = path.stat()
    found = read(account_of(tmp_path))
    assert (["alice"], (), ()) == (
        [each.user for each in found.credentials], found.bad, found.unreachable,
    )  # fmt: skip
    assert (GOOD, before.st_mtime_ns, before.st_mode) == (
        path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode,
    )  # fmt: skip


@pytest.mark.parametrize("home", ["absent", "absent/deeper", f"{FILE_NAME}/below-a-file"])
def test_absent(tmp_path: Path, home: str) -> None:
    """Who has no file, or no home, is passed over."""
    put(tmp_path / FILE_NAME)
    assert ((), (), ()) == read(account_of(tmp_path / home))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_link, "cannot be opened"),
        (make_link_to_good, "cannot be opened"),
        (make_fifo, "is not a regular file"),
        (Path.mkdir, "is not a regular file"),
        (make_giant, "is larger than"),
        (make_readable, "lets others at it"),
        (make_writable, "lets others at it"),
        (make_somebody_elses, "not a secret in base32"),
    ],
)
def test_hostile_files(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    """What a user can put in the file's place is not read, and nothing of it is told."""
    make(tmp_path / FILE_NAME)
    found = read(account_of(tmp_path))
    assert ((), 1, ()) == (found.credentials, len(found.bad), found.unreachable)
    assert words in found.bad[0].reason
    assert not [word for word in ("salt", "hash", "ORSXG5DT") if word in repr(found)]


def test_foreign_owner(tmp_path: Path) -> None:
    """A file that neither the user nor root owns is not read."""
    path = put(tmp_path / FILE_NAME)
    stranger = Account("alice", os.geteuid() + 1, os.getegid(), "")
    found = read_secret_files([("alice", stranger, path)])
    if os.geteuid() == 0:  # root's own file is taken as the administrator's
        assert ((), 1) == (found.bad, len(found.credentials))
        os.chown(path, os.geteuid() + 2, -1)
        found = read_secret_files([("alice", stranger, path)])
    assert ((), 1) == (found.credentials, len(found.bad))
    assert "belongs to user id" in found.bad[0].reason


def test_user_without_account(tmp_path: Path) -> None:
    """The file of a user without an account here must be the administrator's own."""
    found = read_secret_files([("alice", None, put(tmp_path / "copy"))])
    assert ["alice"] == [each.user for each in found.credentials]


def test_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user cannot read either is left out, and is not bad."""

    def refuse(path: Path, **_options: object) -> bytes:
        raise UnsafeFileError(f"{path} cannot be opened") from PermissionError()

    monkeypatch.setattr(homes, "read_file", refuse)
    found = read(account_of(tmp_path))
    assert ((), (), ["alice"]) == (
        found.credentials, found.bad, [each.user for each in found.unreachable],
    )  # fmt: skip


def test_progress(tmp_path: Path) -> None:
    """Whoever waits is told of every user."""
    told: list[int] = []
    files = [("alice", account_of(tmp_path), tmp_path / str(number)) for number in range(3)]
    read_secret_files(files, told.append)
    assert [1, 1, 1] == told


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("~/.google_authenticator", "/home/alice/.google_authenticator"),
        ("${HOME}/.ga", "/home/alice/.ga"),
        ("/var/lib/ga/${USER}", "/var/lib/ga/alice"),
        ("/var/lib/${USER}/${USER}.ga", "/var/lib/alice/alice.ga"),
    ],
)
def test_templates(template: str, expected: str) -> None:
    """A template is written as the module's option secret= has it."""
    assert Path(expected) == expand_template(template, Account("alice", 1, 1, "/home/alice"))


@pytest.mark.parametrize("template", ["", "/etc/shadow", "ga/${USER}", "~root/x", "~", "${USER}"])
def test_no_template(template: str) -> None:
    """A template that names one file for all, or depends on the folder one is in, is refused."""
    with pytest.raises(RefusedError, match="does not name a file for each user"):
        expand_template(template, Account("alice", 1, 1, "/home/alice"))


@pytest.mark.parametrize("user", ["../root", "a/b", "..", "."])
def test_names_that_are_paths(user: str) -> None:
    """A name that leads somewhere else has no file by a template of names."""
    assert expand_template("/var/lib/ga/${USER}", Account(user, 1, 1, "/home/x")) is None


@pytest.mark.parametrize("home", ["", "/"])
def test_no_home(home: str) -> None:
    """An account without a home of its own has no file in it."""
    assert expand_template("~/x", Account("daemon", 1, 1, home)) is None


def test_accounts() -> None:
    """Accounts are those of this host, by name and all of them."""
    entry = pwd.getpwuid(os.geteuid())
    mine = Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)
    assert mine == find_account(entry.pw_name)
    assert mine in list_accounts()
    assert find_account("no-such-account") is None
    assert find_account("nul\0") is None
