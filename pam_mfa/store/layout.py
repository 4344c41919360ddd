# SPDX-License-Identifier: Apache-2.0
"""Where everything lies under a root, and who owns it.

Owns the paths that outsiders rely on and the making of the directories; reads no file.
"""

import grp
import os
import pwd
from pathlib import Path
from typing import NamedTuple

from pam_mfa.errors import BrokenSystemError

SERVICE_USER = "pam-mfa"
LOG_GROUP = "adm"


class Layout(NamedTuple):
    """The paths under one root; ``/`` is the host itself."""

    root: Path

    @property
    def policy(self) -> Path:
        """The policy file."""
        return self.root / "etc/pam_mfa/policy.yaml"

    @property
    def library(self) -> Path:
        """Devices, state and the seal key; the service user's alone."""
        return self.root / "var/lib/pam_mfa"

    @property
    def devices(self) -> Path:
        """One YAML file a user."""
        return self.library / "devices"

    @property
    def state(self) -> Path:
        """The SQLite database of used steps, failures and locks."""
        return self.library / "state.db"

    @property
    def seal_key(self) -> Path:
        """The key that seals the seeds."""
        return self.library / "seal.key"

    @property
    def audit_log(self) -> Path:
        """The audit log."""
        return self.root / "var/log/pam_mfa/audit.jsonl"

    @property
    def run(self) -> Path:
        """The directory of the verifier's socket."""
        return self.root / "run/pam_mfa"

    @property
    def socket(self) -> Path:
        """The verifier's socket."""
        return self.run / "verify.sock"


def make_directories(layout: Layout) -> None:
    """Make what is missing, owned by the service user; as root, before rights are dropped.

    Raises:
        BrokenSystemError: there is no service user, or a directory cannot be made.
    """
    uid, gid = service_ids()
    wanted = (
        (layout.policy.parent, 0, 0, 0o755),
        (layout.library, uid, gid, 0o700),
        (layout.devices, uid, gid, 0o700),
        # The set-group-id bit hands the log's group to every file made in it.
        (layout.audit_log.parent, uid, _log_group(gid), 0o2750),
        (layout.run, uid, gid, 0o755),
    )
    for path, owner, group, mode in wanted:
        _make(path, owner, group, mode)


def _make(path: Path, owner: int, group: int, mode: int) -> None:
    try:
        if not path.exists():
            path.mkdir(parents=True)
            os.chown(path, owner, group)
            path.chmod(mode)
    except OSError as error:
        raise BrokenSystemError(f"{error.filename} cannot be made: {error.strerror}") from error


def make_run_directory(layout: Layout) -> None:
    """Make the directory of the verifier's socket, which no boot keeps; as root.

    The others are not made here: a store that is not mounted must not turn into an empty one, in
    which nobody is enrolled.

    Raises:
        BrokenSystemError: there is no service user, or it cannot be made.
    """
    uid, gid = service_ids()
    _make(layout.run, uid, gid, 0o755)


def service_ids() -> tuple[int, int]:
    """Return the user and group id of the service user.

    Raises:
        BrokenSystemError: there is none on this host.
    """
    try:
        entry = pwd.getpwnam(SERVICE_USER)
    except KeyError as error:
        raise BrokenSystemError(
            f"there is no system user '{SERVICE_USER}' on this host",
            hint=f"Make it: useradd --system --no-create-home --shell /usr/sbin/nologin "
            f"{SERVICE_USER}",
        ) from error
    return entry.pw_uid, entry.pw_gid


def drop_privileges() -> None:
    """Become the service user for good, before any file of ours is touched.

    Does nothing for a process that is not root.

    Raises:
        BrokenSystemError: there is no service user.
    """
    if os.geteuid() != 0:
        return
    uid, gid = service_ids()
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _log_group(fallback: int) -> int:
    try:
        return grp.getgrnam(LOG_GROUP).gr_gid
    except KeyError:
        return fallback
