# SPDX-License-Identifier: Apache-2.0
"""The policy file, read again when it changes; a broken new one keeps the old one, loudly."""

from collections.abc import Callable
from pathlib import Path

from pam_mfa.errors import DocumentError, PolicyError, UnsafeFileError
from pam_mfa.policy import Policy
from pam_mfa.store.policies import read_policy


class PolicyFile:
    """The policy in force."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        """Take the path and where to tell of a broken or changed file; nothing is read yet."""
        self._path = path
        self._tell = tell
        self._policy: Policy | None = None
        self._seen: tuple[int, ...] = ()

    def current(self) -> Policy:
        """Return the policy in force, after a look at whether its file has changed.

        Raises:
            PolicyError: there has been none that can be used, so nothing can be decided.
        """
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            self._reload()
        if self._policy is None:
            raise PolicyError(
                f"there is no usable policy at {self._path}, so every login is refused",
                hint="See: pam-mfa policy check",
            )
        return self._policy

    def _look(self) -> tuple[int, ...]:
        try:
            about = self._path.lstat()
        except OSError as error:
            return (error.errno or -1,)
        return (about.st_mtime_ns, about.st_ino, about.st_size, about.st_mode, about.st_uid)

    def _reload(self) -> None:
        had_one = self._policy is not None
        try:
            self._policy = read_policy(self._path)
        except (DocumentError, UnsafeFileError) as error:
            self._tell_broken(f"{error}. {error.hint}" if error.hint else str(error))
        else:
            if had_one:
                self._tell(f"the policy {self._path} was read again and is in force")

    def _tell_broken(self, what: str) -> None:
        kept = "the policy read before stays in force" if self._policy else "every login is refused"
        self._tell(f"POLICY BROKEN: {what}; {kept}")
