# SPDX-License-Identifier: Apache-2.0
"""The PAM stacks under test, as the text of a service's file.

Owns how the module stands in a stack, and the reading of the examples in config/, whose lines
are used as they are but for two: the module's path becomes that of the test's own installation
with its root, and Debian's common-* files become pam_unix, which is what they come to.
"""

from installed import REPOSITORY, DataRoot

INSTALLED_MODULE = "/opt/pam-mfa/lib/security/pam_mfa.so"
# nodelay: pam_unix otherwise sleeps for two seconds after a wrong password.
COMMON = {
    "@include common-auth": "auth required pam_unix.so nodelay",
    "@include common-account": "account required pam_unix.so",
    "@include common-session": "session required pam_unix.so",
    "@include common-session-noninteractive": "session required pam_unix.so",
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
    text = (REPOSITORY / "config/pam.d" / name).read_text()
    assert INSTALLED_MODULE in text
    stack = text.replace(INSTALLED_MODULE, root.module)
    lines = [COMMON.get(line.strip(), line) for line in stack.splitlines()]
    left = [line for line in lines if line.startswith("@include")]
    assert not left, left
    return "\n".join([*lines, ""])


def shipped_sshd_config(name: str) -> list[str]:
    """Return the settings of config/sshd_config.d/NAME."""
    text = (REPOSITORY / "config/sshd_config.d" / name).read_text()
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
