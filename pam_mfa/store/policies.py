# SPDX-License-Identifier: Apache-2.0
"""Policy files on disk, and the directory of fragments that one may include."""

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from pam_mfa.errors import BrokenSystemError, UnsafeFileError
from pam_mfa.policy import (
    FRAGMENT_SIZE_MAX,
    POLICY_SIZE_MAX,
    Policy,
    StoreRules,
    check_policy,
    parse_policy,
    parse_store,
)
from pam_mfa.store.files import read_file

_WRITABLE_BY_OTHERS = 0o022
_FRAGMENTS_MAX = 500
_SUFFIX = ".yaml"
Marks = tuple[tuple[str, int, int, int, int, int], ...]


class PolicySource:
    """A policy file; it remembers the directory that its last reading included."""

    def __init__(self, path: Path) -> None:
        """Take the file's path; nothing is read yet."""
        self.path = path
        self.directory: Path | None = None
        self.marks: Marks = ()
        """How the directory and its fragments looked just before they were read."""
        self.digest = ""
        """SHA-256 of what was read last, each file after its length; "" where none could be."""

    def read(self) -> Policy:
        """Read the policy.

        Raises:
            UnsafeFileError: a file is missing, or somebody else may have written it.
            DocumentError: a content is wrong; the text names the file, the line and the key.
        """
        self.digest = ""
        data = self._read_file()
        digest = hashlib.sha256(len(data).to_bytes(8, "big") + data)

        def read_fragments(directory: str) -> Sequence[tuple[str, bytes]]:
            fragments = self._read_fragments(directory)
            for _, fragment in fragments:
                digest.update(len(fragment).to_bytes(8, "big") + fragment)
            return fragments

        try:
            return parse_policy(data, str(self.path), read_fragments)
        finally:
            self.digest = digest.hexdigest()

    def check(self) -> tuple[Policy, list[BrokenSystemError]]:
        """Read the policy and return it with everything that is wrong.

        Raises:
            UnsafeFileError: the file is missing, or somebody else may have written it.
            DocumentError: it is no document at all.
        """
        return check_policy(self._read_file(), str(self.path), self._read_fragments)

    def look(self) -> Marks:
        """Return how the file, the directory and its fragments look now."""
        return (_mark(self.path), *(_look_at(self.directory) if self.directory else ()))

    def _read_file(self) -> bytes:
        try:
            return read_safely(self.path, POLICY_SIZE_MAX)
        except FileNotFoundError as error:
            raise UnsafeFileError(
                f"there is no {self.path}", hint="The installation has one in share/policy.yaml."
            ) from error

    def _read_fragments(self, directory: str) -> Sequence[tuple[str, bytes]]:
        """Return the fragments of a directory, in the order of their names."""
        self.directory = self.path.parent / directory
        self.marks = _look_at(self.directory)
        names = _name_fragments(self.directory)
        if len(names) > _FRAGMENTS_MAX:
            raise UnsafeFileError(f"{self.directory} has more than {_FRAGMENTS_MAX} fragments")
        paths = [self.directory / name for name in names]
        try:
            return [(str(path), read_safely(path, FRAGMENT_SIZE_MAX)) for path in paths]
        except FileNotFoundError as error:
            raise UnsafeFileError(f"{error.filename} went away while it was read") from error


def read_policy(path: Path) -> Policy:
    """Read a policy file that only its owner can write, and what it includes.

    Raises:
        UnsafeFileError: there is none, or somebody else may have written it.
        DocumentError: its content is wrong; the text names the line and the key.
    """
    return PolicySource(path).read()


def read_store_rules(path: Path) -> StoreRules:
    """Read what a policy file says of the store; the embedded one where there is no file yet.

    Raises:
        UnsafeFileError: somebody else may have written it.
        DocumentError: what it says of the store is wrong, or it is no document.
    """
    try:
        data = read_safely(path, POLICY_SIZE_MAX)
    except FileNotFoundError:
        return StoreRules()
    return parse_store(data, str(path))


def read_safely(path: Path, size_max: int) -> bytes:
    """Return the bytes of a file that only root or this user can have written.

    Raises:
        FileNotFoundError: there is none.
        UnsafeFileError: somebody else may have written it.
    """
    owners = {0, os.geteuid()}
    return read_file(path, owners=owners, forbidden=_WRITABLE_BY_OTHERS, size_max=size_max)


def _name_fragments(directory: Path) -> list[str]:
    """Return the names of a directory's fragments, in their order.

    Raises:
        UnsafeFileError: it is no directory, or others could put a file or a link into it.
    """
    hint = f"See: ls -ld {directory}"
    try:
        about = directory.lstat()
        names = os.listdir(directory)  # noqa: PTH208 - names are sorted as text
    except OSError as error:
        raise UnsafeFileError(f"{directory} cannot be read: {error.strerror}", hint=hint) from error
    if not stat.S_ISDIR(about.st_mode):
        raise UnsafeFileError(f"{directory} is no directory but a link or a file", hint=hint)
    if about.st_uid not in (0, os.geteuid()) or about.st_mode & _WRITABLE_BY_OTHERS:
        raise UnsafeFileError(f"others than root may write to {directory}", hint=hint)
    return sorted(name for name in names if _is_fragment(name))


def _is_fragment(name: str) -> bool:
    return name.endswith(_SUFFIX) and not name.startswith(".")


def _look_at(directory: Path) -> Marks:
    """Return how a directory and its fragments look; a change in place shows in a file's time."""
    try:
        names = sorted(filter(_is_fragment, os.listdir(directory)))  # noqa: PTH208 - as above
    except OSError:
        names = []
    return (_mark(directory), *(_mark(directory / name) for name in names[:_FRAGMENTS_MAX]))


def _mark(path: Path) -> tuple[str, int, int, int, int, int]:
    try:
        about = path.lstat()
    except OSError as error:
        return (path.name, error.errno or -1, 0, 0, 0, 0)
    times = about.st_mtime_ns
    return (path.name, times, about.st_ino, about.st_size, about.st_mode, about.st_uid)
