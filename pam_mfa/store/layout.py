# SPDX-License-Identifier: Apache-2.0
"""Where everything lies under a root, and who owns it.

Owns the paths that outsiders rely on and the making of the directories; reads no file.
"""

import contextlib
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
    def offline(self) -> Path:
        """What is kept of users for when a fleet's database cannot be reached."""
        return self.library / "offline"

    @property
    def audit_log(self) -> Path:
        """The audit log."""
        return self.root / "var/log/pam_mfa/audit.jsonl"

    @property
    def signing_key(self) -> Path:
        """The sealed key that signs the audit log."""
        return self.library / "audit.key"

    @property
    def public_key(self) -> Path:
        """The public key that the audit log's signatures are verified with."""
        return self.library / "audit.pub"

    @property
    def run(self) -> Path:
        """The directory of the verifier's socket."""
        return self.root / "run/pam_mfa"

    @property
    def socket(self) -> Path:
        """The verifier's socket for host programs that run as root."""
        return self.run / "verify.sock"

    @property
    def self_socket(self) -> Path:
        """The verifier's socket for everybody else, to verify themselves."""
        return self.run / "verify-self.sock"

    @property
    def self_service_socket(self) -> Path:
        """The socket on which users ask for changes of their own devices.

        In a directory of root's: passwords are sent to it, which the verifier's user must not see.
        """
        return self.root / "run/pam-mfa-selfd.sock"

    @property
    def pam_services(self) -> Path:
        """The directory of PAM's service files."""
        return self.root / "etc/pam.d"


def make_directories(layout: Layout) -> None:
    """Make what is missing, owned by the service user; as root, before rights are dropped.

    Nothing is made here inside a directory that the service user may write: it could be swapped
    for a link to another one meanwhile. ``make_own_directories`` makes those.

    Raises:
        BrokenSystemError: there is no service user, or a directory cannot be made.
    """
    uid, gid = service_ids()
    _make(layout.policy.parent, (0, 0), 0o755)
    _make(layout.library, (uid, gid), 0o700)
    # The set-group-id bit hands the log's group to every file made in it.
    _make(layout.audit_log.parent, (uid, _log_group(gid)), 0o2750)
    make_run_directory(layout)


def make_run_directory(layout: Layout) -> None:
    """Make the directory of the verifier's sockets, which no boot keeps; as root.

    The others are not made by a verifier: a store that is not mounted must not turn into an
    empty one, in which nobody is enrolled.

    Raises:
        BrokenSystemError: there is no service user, or it cannot be made.
    """
    _make(layout.run, service_ids(), 0o755)


def make_own_directories(layout: Layout) -> None:
    """Make what is missing inside the service user's directory; as the service user.

    Raises:
        BrokenSystemError: a directory cannot be made.
    """
    try:
        layout.devices.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise BrokenSystemError(f"{layout.devices} cannot be made: {error.strerror}") from error


def _make(path: Path, owner: tuple[int, int], mode: int) -> None:
    """Make a directory and those above it, following no link that somebody puts in their way."""
    if path.exists():
        return
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    current = os.open("/", flags & ~os.O_NOFOLLOW)
    try:
        for part in path.parts[1:]:
            is_new = False
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=current)
                is_new = True
            # What was there before may be a link, as /var/run is; what is new may not.
            inner = os.open(part, flags if is_new else flags & ~os.O_NOFOLLOW, dir_fd=current)
            os.close(current)
            current = inner
        if is_new and os.fstat(current).st_uid == os.geteuid():
            os.fchown(current, *owner)
            os.fchmod(current, mode)
    except OSError as error:
        raise BrokenSystemError(f"{path} cannot be made: {error.strerror}") from error
    finally:
        os.close(current)


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
