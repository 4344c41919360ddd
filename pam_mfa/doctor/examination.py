# SPDX-License-Identifier: Apache-2.0
"""All checks, one after the other; one that fails is a finding itself.

A new check is a function from a view to findings, and a line in ``CHECKS``.
"""

from collections.abc import Callable, Iterator
from typing import Final

from pam_mfa.doctor.daemon import check_sockets
from pam_mfa.doctor.database import check_state, check_users
from pam_mfa.doctor.files import (
    check_audit_log,
    check_policy,
    check_rights,
    check_room,
    check_store,
)
from pam_mfa.doctor.finding import Finding, fault
from pam_mfa.doctor.fleet import check_fleet
from pam_mfa.doctor.kernel import check_clock, check_denials, check_keys
from pam_mfa.doctor.modules import check_modules
from pam_mfa.doctor.programs import check_sshd, check_sudo
from pam_mfa.doctor.seals import check_seal_key
from pam_mfa.doctor.stacks import check_stacks
from pam_mfa.doctor.switches import check_switches
from pam_mfa.doctor.view import View
from pam_mfa.errors import PamMfaError

Check = Callable[[View], Iterator[Finding]]
CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("module", check_modules),
    ("rights", check_rights),
    ("store", check_store),
    ("fleet", check_fleet),
    ("seal key", check_seal_key),
    ("state", check_state),
    ("audit log", check_audit_log),
    ("disk", check_room),
    ("policy", check_policy),
    ("PAM", check_stacks),
    ("sshd", check_sshd),
    ("sudo", check_sudo),
    ("switch", check_switches),
    ("daemon", check_sockets),
    ("clock", check_clock),
    ("security keys", check_keys),
    ("denials", check_denials),
    ("users", check_users),
)


def examine(view: View, checks: tuple[tuple[str, Check], ...] = CHECKS) -> Iterator[Finding]:
    """Go through everything that is found."""
    for subject, check in checks:
        try:
            yield from check(view)
        except PamMfaError as error:
            yield fault(subject, str(error), error.hint or "Mend that first.")
        except OSError as error:
            yield fault(subject, f"it could not be looked at: {error}", "Mend that first.")
