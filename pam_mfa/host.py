# SPDX-License-Identifier: Apache-2.0
"""What the host itself says of who can log in: its accounts, login shells and PAM services.

Read only, under a root; writes nothing. An account is **login-capable** when its shell is empty,
which means /bin/sh, or is none of nologin and false and, where there is an /etc/shells, stands in
it. That says nothing about a password or key: an account without either may get one any day.
"""

import os
import pwd
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from pam_mfa.pam_services import ReadText, Service, parse_service

_NO_LOGIN = ("nologin", "false")
_FILE_MAX = 1 << 20  # bytes of /etc/shells or a PAM file
_PASSWD_FIELDS = 7  # passwd(5)
_DIRECTORIES: Final = ("etc/pam.d", "usr/lib/pam.d")  # pam.d(5): the first one wins
# Left behind by editors and package managers, and what services include but nobody logs in by.
_NO_SERVICE = ("~", ".dpkg-old", ".dpkg-dist", ".dpkg-new", ".rpmsave", ".rpmnew", ".bak", ".orig")
_FRAGMENTS = (
    "common-", "system-", "password-auth", "postlogin", "fingerprint-auth", "smartcard-auth",
)  # fmt: skip


class Account(NamedTuple):
    """An account of the host."""

    name: str
    uid: int
    is_login_capable: bool


class Accounts:
    """The accounts under one root, by name."""

    def __init__(self, root: Path) -> None:
        """Read them: the host's own by its name service, another root's from its passwd file."""
        self._is_host = root == Path("/")
        self._shells = _read_shells(root)
        self._accounts: dict[str, Account] = {}
        self.are_known = True
        """Whether there are accounts to be read at all: a data root has none."""
        if self._is_host:
            for entry in pwd.getpwall():
                self._add(entry.pw_name, entry.pw_uid, entry.pw_shell)
        else:
            self._read_passwd(root / "etc/passwd")

    def names(self) -> Iterator[str]:
        """Go through the accounts that can log in."""
        return (one.name for one in self._accounts.values() if one.is_login_capable)

    def find(self, name: str) -> Account | None:
        """Return an account; a directory service may know one that it does not list."""
        if name not in self._accounts and self._is_host:
            try:
                entry = pwd.getpwnam(name)
            except (KeyError, UnicodeError, ValueError):
                return None
            self._add(name, entry.pw_uid, entry.pw_shell)
        return self._accounts.get(name)

    def _read_passwd(self, path: Path) -> None:
        try:
            with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                for line in file:
                    fields = line.rstrip("\n").split(":")
                    if len(fields) == _PASSWD_FIELDS and fields[0] and fields[2].isdecimal():
                        self._add(fields[0], int(fields[2]), fields[6])
        except OSError:
            self.are_known = False

    def _add(self, name: str, uid: int, shell: str) -> None:
        if name not in self._accounts:  # the first one counts, as for getpwnam
            account = Account(name, uid, is_login_shell(shell, self._shells))
            self._accounts[name] = account


def is_login_shell(shell: str, shells: Collection[str] | None) -> bool:
    """Whether somebody can log in by a shell; ``shells``: what /etc/shells lists, where it is."""
    if not shell:
        return True
    if shell.rpartition("/")[2] in _NO_LOGIN:
        return False
    return shells is None or shell in shells


def read_services(root: Path) -> list[Service]:
    """Return every PAM service under a root, by name."""
    names: set[str] = set()
    for directory in (root / name for name in _DIRECTORIES):
        try:
            names.update(path.name for path in directory.iterdir())
        except OSError:
            continue
    read_text = pam_reader(root)
    return [parse_service(name, read_text) for name in sorted(names) if _is_service(name)]


def pam_reader(root: Path) -> ReadText:
    """Return what reads a file of PAM's under a root: one of its directories, or by a path."""
    directories = [root / name for name in _DIRECTORIES]

    def read_text(file: str) -> str:
        if file.startswith("/"):
            return _read_text(root / file[1:])
        try:
            return _read_text(directories[0] / file)
        except FileNotFoundError:
            return _read_text(directories[1] / file)

    return read_text


def _is_service(name: str) -> bool:
    return not name.startswith((".", *_FRAGMENTS)) and not name.endswith(_NO_SERVICE)


def _read_shells(root: Path) -> frozenset[str] | None:
    try:
        text = _read_text(root / "etc/shells")
    except OSError:
        return None
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return frozenset(line for line in lines if line)


def _read_text(path: Path) -> str:
    """Return a small file's text; of an image, it may be anything.

    Raises:
        OSError: there is none, or it is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is not a regular file", str(path))
        return file.read(_FILE_MAX)
