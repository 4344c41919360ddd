# SPDX-License-Identifier: Apache-2.0
"""All that checks look through: files under a root, and programs of the host itself.

The seam for tests: a view of their own answers for programs and the kernel.
"""

import os
import subprocess
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from pam_mfa.errors import PamMfaError
from pam_mfa.host import read_services
from pam_mfa.pam_services import Service
from pam_mfa.policy import Policy
from pam_mfa.store.layout import Layout
from pam_mfa.store.policies import read_policy
from pam_mfa.switching.bypasses import MODULE
from pam_mfa.switching.sshd import list_blocks, read_settings
from pam_mfa.switching.sshd_blocks import Block

_PATIENCE = 15.0  # seconds
_TEXT_MAX = 1 << 22


class View:
    """What there is under one root."""

    def __init__(self, layout: Layout) -> None:
        """Take the root."""
        self.layout = layout
        self.root = layout.root
        self.is_host = layout.root == Path("/")

    @cached_property
    def services(self) -> list[Service]:
        """The host's PAM services."""
        return read_services(self.root)

    @cached_property
    def asking(self) -> list[Service]:
        """Those in which the module has an auth line."""
        return [one for one in self.services if one.lines_of("auth", MODULE)]

    @cached_property
    def policy(self) -> Policy | None:
        """The policy, where it can be read."""
        try:
            return read_policy(self.layout.policy)
        except PamMfaError:
            return None

    def sshd_settings(self, block: Block | None = None) -> dict[str, str]:
        """Return sshd's settings, by itself, for whom no Match block or this one alone counts.

        Raises:
            PamMfaError: they are not to be had.
        """
        return read_settings(self.root, None, block)

    def sshd_blocks(self) -> list[Block]:
        """Return the Match blocks of sshd's configuration.

        Raises:
            PamMfaError: they are not to be had.
        """
        return list_blocks(self.root)

    def find_service(self, name: str) -> Service | None:
        """Return a service in which the module has an auth line."""
        return next((one for one in self.asking if one.name == name), None)

    def stat(self, path: Path) -> os.stat_result | None:
        """Return what is at a path itself; None where nothing is."""
        try:
            return path.lstat()
        except OSError:
            return None

    def read_text(self, path: Path) -> str:
        """Return a file's text; "" where there is none that can be read."""
        try:
            with path.open("rb") as file:
                return file.read(_TEXT_MAX).decode("utf-8", "replace")
        except OSError:
            return ""

    def read_end(self, path: Path) -> str:
        """Return the end of a file that may be large; "" where there is none that can be read."""
        try:
            with path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TEXT_MAX))
                return file.read(_TEXT_MAX).decode("utf-8", "replace")
        except OSError:
            return ""

    def run(self, *words: str) -> str | None:
        """Return what a program of the host prints; None: there is none, or it fails."""
        if not self.is_host:
            return None
        return _run(words)


def _run(words: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed programs
            words, capture_output=True, text=True, timeout=_PATIENCE, check=False,
            stdin=subprocess.DEVNULL, errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
