# SPDX-License-Identifier: Apache-2.0
"""Files in users' homes: property of their users, read with no more than their rights.

What lies in a home is opened as the user whose home it is, so that no link in it lends root's eyes
to anybody (pam_oath CVE-2024-47191). Nothing here is needed to verify a login.
"""

import contextlib
import os
import pwd
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pam_mfa.errors import RefusedError, UnsafeFileError
from pam_mfa.importing.credentials import BadCredential, Credential
from pam_mfa.importing.google_authenticator import SIZE_MAX, parse_secret_file
from pam_mfa.store.files import read_file

_FORBIDDEN = 0o026  # a secret that everybody reads, or others write, is none
_NO_HOMES = ("", "/")


class Account(NamedTuple):
    """An account of this host."""

    user: str
    uid: int
    gid: int
    home: str


def list_accounts() -> list[Account]:
    """Return every account that this host's account database enumerates."""
    return [_account(entry) for entry in pwd.getpwall()]


def find_account(user: str) -> Account | None:
    """Return a user's account, or None."""
    try:
        return _account(pwd.getpwnam(user))
    except (KeyError, ValueError):
        return None


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def expand_template(template: str, account: Account) -> Path | None:
    """Return a user's path by a template with ``~``, ``${HOME}`` and ``${USER}``.

    None where the account has no home, or a name that is more than one name of a file.

    Raises:
        RefusedError: the template names one file for everybody, or is no absolute path.
    """
    text = f"${{HOME}}{template[1:]}" if template.startswith("~/") else template
    if not text.startswith(("/", "${HOME}/")) or not ("${HOME}" in text or "${USER}" in text):
        raise RefusedError(
            f"'{template}' does not name a file for each user",
            hint="Write it as pam_google_authenticator's secret= has it, for example "
            "'/var/lib/google/${USER}'.",
        )
    if "${HOME}" in text and account.home in _NO_HOMES:
        return None
    if "${USER}" in text and ("/" in account.user or account.user in {".", ".."}):
        return None
    return Path(text.replace("${HOME}", account.home).replace("${USER}", account.user))


class SecretFiles(NamedTuple):
    """What the secret files of many users say."""

    credentials: tuple[Credential, ...]
    bad: tuple[BadCredential, ...]
    unreachable: tuple[BadCredential, ...]  # for their users, too, as in a home that is not theirs


def read_secret_files(
    files: Iterable[tuple[str, Account | None, Path]],
    progress: Callable[[int], None] = lambda _count: None,
) -> SecretFiles:
    """Read google-authenticator's files of many users; who has none is passed over.

    Args:
        files: each user, the account where there is one, and the file's path.
        progress: told of each user.
    """
    credentials: list[Credential] = []
    bad: list[BadCredential] = []
    unreachable: list[BadCredential] = []
    for user, account, path in files:
        progress(1)
        try:
            data = read_private_file(path, account, SIZE_MAX)
        except FileNotFoundError:
            continue
        except UnsafeFileError as error:
            is_denied = isinstance(error.__cause__, PermissionError)
            entry = BadCredential(user, str(path), 0, str(error))
            (unreachable if is_denied else bad).append(entry)
            continue
        said = parse_secret_file(data, str(path), user)
        credentials.append(said) if isinstance(said, Credential) else bad.append(said)
    return SecretFiles(tuple(credentials), tuple(bad), tuple(unreachable))


def read_private_file(path: Path, account: Account | None, size_max: int) -> bytes:
    """Return the bytes of a user's file, which must be the user's own or root's.

    Args:
        path: its name; the last part must not be a link.
        account: whose it is; None: a user without an account here, so root's alone.
        size_max: bytes.

    Raises:
        FileNotFoundError: there is none.
        UnsafeFileError: it is somebody else's, no regular file, too large, open to others, or
            cannot be read; its ``__cause__`` is the error of the system, if there was one.
    """
    owners = {account.uid, 0} if account else {os.geteuid(), 0}
    try:
        with contextlib.ExitStack() as stack:
            if account and account.uid and os.geteuid() == 0 and _is_in_home(path, account):
                stack.enter_context(_rights_of(account))
            return read_file(path, owners=owners, forbidden=_FORBIDDEN, size_max=size_max)
    except UnsafeFileError as error:
        if isinstance(error.__cause__, NotADirectoryError):  # a home such as /dev/null
            raise FileNotFoundError(str(path)) from error
        if account and isinstance(error.__cause__, PermissionError) and os.geteuid() == 0:
            with contextlib.suppress(OSError, ValueError, UnsafeFileError):
                return _read_roots_file(path, account, size_max)
        raise


def _read_roots_file(path: Path, account: Account, size_max: int) -> bytes:
    """Read what pam_google_authenticator writes into a home as root, by its option user=root.

    Root's rights, so: no link on the way from the home on, and the file is root's and has no other
    name. The user can rename such a file and cannot make one of a file elsewhere.
    """
    *folders, name = path.relative_to(account.home).parts
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        current = os.open(account.home, flags & ~os.O_NOFOLLOW)
        stack.callback(os.close, current)
        if os.fstat(current).st_uid != account.uid:  # not the user's home, but /root for instance
            raise PermissionError(str(path))
        for folder in folders:
            current = os.open(folder, flags, dir_fd=current)
            stack.callback(os.close, current)
        inside = Path(f"/proc/self/fd/{current}") / name
        return read_file(inside, owners={0}, forbidden=_FORBIDDEN, size_max=size_max, is_alone=True)


def _is_in_home(path: Path, account: Account) -> bool:
    if account.home in _NO_HOMES:
        return False
    real = Path(os.path.realpath(path.parent))
    return path.is_relative_to(account.home) or real.is_relative_to(os.path.realpath(account.home))


@contextlib.contextmanager
def _rights_of(account: Account) -> Iterator[None]:
    """Be somebody else while a file is opened, as google-authenticator's own module is."""
    groups, gid = os.getgroups(), os.getegid()
    try:
        os.setgroups([])
        os.setegid(account.gid)
        os.seteuid(account.uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)
