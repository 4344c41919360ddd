# SPDX-License-Identifier: Apache-2.0
"""Sealed files of this host's own, each bound to what it is about."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from pam_mfa.errors import BrokenSystemError, SealError, StateError
from pam_mfa.secret import Secret
from pam_mfa.store.files import read_file
from pam_mfa.store.seal import Sealer

_SIZE_MAX = 1 << 18
_PATIENCE = 5.0  # seconds that the other process is waited for
_PAUSE = 0.005  # seconds


def make_directory(path: Path) -> None:
    """Make a directory of this host's verifier alone, where it is missing.

    Raises:
        BrokenSystemError: it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise BrokenSystemError(f"{path} cannot be made: {error.strerror}") from error


def read_sealed(path: Path, sealer: Sealer, bound: tuple[str, str]) -> Secret | None:
    """Return what is sealed in a file; None where there is none.

    Raises:
        SealError: it was sealed for others, by a key that is gone, or changed.
        UnsafeFileError: others can get at it.
    """
    try:
        data = read_file(path, owners={os.geteuid()}, forbidden=0o077, size_max=_SIZE_MAX)
    except FileNotFoundError:
        return None
    try:
        return sealer.open(data.decode("ascii"), *bound)
    except UnicodeDecodeError as error:
        raise SealError(f"{path} is no sealed text") from error


@contextlib.contextmanager
def turn(path: Path, *, is_alone: bool) -> Iterator[None]:
    """Keep logins without the database apart from handing in what they used, between processes.

    Raises:
        StateError: another process stays in its turn.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise StateError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        kind = fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise StateError(f"{path} stays locked", hint=f"See: fuser {path}") from error
                time.sleep(_PAUSE)
        yield
    finally:
        os.close(descriptor)
