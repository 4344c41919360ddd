# SPDX-License-Identifier: Apache-2.0
"""The module's own line in a PAM file: its root, what it splits off, whether PAM heeds it. Pure."""

from pam_mfa.pam_services import Line
from pam_mfa.wire import Phase

MODULE = "pam_mfa.so"
_RESULTS = {  # of pam_mfa.so, refusing
    Phase.AUTH: "auth_err",
    Phase.ACCOUNT: "perm_denied",
    Phase.SESSION: "session_err",
}


def is_heeded(line: Line, phase: Phase) -> bool:
    """Whether PAM refuses a login where the module does."""
    return line.is_binding(_RESULTS[phase])


def other_root(line: Line, root: str) -> str:
    """Return the root that a line names, where it is not this one; "" otherwise."""
    named = [word.removeprefix("root=") for word in line.arguments if word.startswith("root=/")]
    return named[-1] if named and named[-1].rstrip("/") != root.rstrip("/") else ""


def forwarded_digits(line: Line) -> int:
    """Return how many digits are taken off the end of a password typed with its code; 0: none."""
    digits = 0
    for word in line.arguments:
        key, _, value = word.partition("=")
        if key == "forward_pass":
            digits = int(value) if value.isdecimal() else 6
    return digits
