# SPDX-License-Identifier: Apache-2.0
"""The policy file, read again when it changes; a broken new one keeps the old one, loudly.

So are the fragments of a directory that it includes.
"""

from collections.abc import Callable
from pathlib import Path

from pam_mfa.errors import DocumentError, PolicyError, UnsafeFileError
from pam_mfa.policy import Policy
from pam_mfa.store.policies import Marks, PolicySource


class PolicyFile:
    """The policy in force."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        """Take the path and where to tell of a broken or changed file; nothing is read yet."""
        self._source = PolicySource(path)
        self._tell = tell
        self.news: tuple[str, bool] | None = None
        """The hash of the last file that was read, and whether it is in force; for a record."""
        self._policy: Policy | None = None
        self._seen: Marks = ()

    @property
    def path(self) -> Path:
        """The file's."""
        return self._source.path

    def current(self) -> Policy:
        """Return the policy in force, after a look at whether its file has changed.

        Raises:
            PolicyError: there has been none that can be used, so nothing can be decided.
        """
        seen = self._source.look()
        if seen != self._seen:
            self._source.marks = seen[1:]
            self._reload()
            # As they looked before they were read: a change meanwhile is noticed next time.
            self._seen = (seen[0], *self._source.marks)
        if self._policy is None:
            raise PolicyError(
                f"there is no usable policy at {self.path}, so every login is refused",
                hint="See: pam-mfa policy check",
            )
        return self._policy

    def _reload(self) -> None:
        had_one = self._policy is not None
        try:
            self._policy = self._source.read()
        except (DocumentError, UnsafeFileError) as error:
            self._tell_broken(f"{error}. {error.hint}" if error.hint else str(error))
            self.news = (self._source.digest, False)
        else:
            self.news = (self._source.digest, True)
            if had_one:
                self._tell(f"the policy {self.path} was read again and is in force")

    def _tell_broken(self, what: str) -> None:
        kept = "the policy read before stays in force" if self._policy else "every login is refused"
        self._tell(f"POLICY BROKEN: {what}; {kept}")
