# SPDX-License-Identifier: Apache-2.0
"""The PAM stacks under test, as the text of a service's file.

Owns how the module stands in a stack, and the reading of the examples in config/, whose lines
are used as they are but for two: the module's path becomes that of the test's own installation
with its root, and Debian's common-* files become what pam-auth-update writes into them for
passwords alone.
"""

from installed import REPOSITORY, DataRoot

INSTALLED_MODULE = "/opt/pam-mfa/lib/security/pam_mfa.so"
# nodelay: pam_unix otherwise sleeps for two seconds after a wrong password.
COMMON_AUTH = """\
auth [success=1 default=ignore] pam_unix.so nullok nodelay
auth requisite pam_deny.so
auth required pam_permit.so"""
COMMON_ACCOUNT = """\
account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so
account requisite pam_deny.so
account required pam_permit.so"""
COMMON_SESSION = """\
session [default=1] pam_permit.so
session requisite pam_deny.so
session required pam_permit.so
session required pam_unix.so"""
COMMON = {
    "@include common-auth": COMMON_AUTH,
    "@include common-account": COMMON_ACCOUNT,
    "@include common-session": COMMON_SESSION,
    "@include common-session-noninteractive": COMMON_SESSION,
}


def password_then_code(root: DataRoot) -> str:
    """Return the stack that asks for a password, then for a code."""
    return f"auth required pam_unix.so nodelay\n{code_alone(root)}"


def code_alone(root: DataRoot) -> str:
    """Return the stack that asks for a code and nothing else."""
    return f"""\
auth required {root.module}
account required pam_unix.so
account required {root.module}
session required pam_permit.so
session required {root.module}
"""


def joined(root: DataRoot) -> str:
    """Return the stack that asks once, for the password with the code behind it."""
    return f"""\
auth required {root.module} forward_pass
auth required pam_unix.so use_first_pass nodelay
account required pam_unix.so
account required {root.module}
session required pam_permit.so
session required {root.module}
"""


def shipped(name: str, root: DataRoot) -> str:
    """Return config/pam.d/NAME, with the module and the passwords of the test in it."""
    stack = shipped_service(name)
    assert INSTALLED_MODULE in stack
    return stack.replace(INSTALLED_MODULE, root.module)


def shipped_service(name: str) -> str:
    """Return config/pam.d/NAME, with the passwords of the test in it."""
    stack = (REPOSITORY / "config/pam.d" / name).read_text()
    lines = [COMMON.get(line.strip(), line) for line in stack.splitlines()]
    left = [line for line in lines if line.startswith("@include")]
    assert not left, left
    return "\n".join([*lines, ""])


def shipped_sshd_config(name: str) -> list[str]:
    """Return the settings of config/sshd_config.d/NAME."""
    text = (REPOSITORY / "config/sshd_config.d" / name).read_text()
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
