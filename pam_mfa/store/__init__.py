# SPDX-License-Identifier: Apache-2.0
"""The store: devices and state behind one interface.

``Store`` is what verification and lifecycle know; ``EmbeddedStore`` (files and SQLite on this
host) is one implementation.
"""

from typing import Protocol

from pam_mfa.store.enrollment import Enrollment, OpenDevice, Standing
from pam_mfa.store.state import Change, Claim, Known


class Store(Protocol):
    """What is kept of users and devices."""

    def read_enrollment(self, user: str) -> Enrollment:
        """Return what a user can be verified by, after the same work for every name."""

    def commit(self, claims: list[Claim]) -> list[Change]:
        """Judge claims and make their changes and records durable."""

    def close(self) -> None:
        """Leave everything on disk where the next one expects it."""

    def pseudonym(self, text: str) -> str:
        """Return what stands in records for a name that no account has."""


__all__ = ["Change", "Claim", "Enrollment", "Known", "OpenDevice", "Standing", "Store"]
