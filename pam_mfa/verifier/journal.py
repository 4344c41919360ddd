# SPDX-License-Identifier: Apache-2.0
"""The verifier's words to the system log; never a secret or what a person typed."""

import syslog
from typing import Final

from pam_mfa.errors import PamMfaError

_LINE_MAX: Final = 1000  # characters


def open_journal(program: str) -> None:
    """Name this program to the system log."""
    syslog.openlog(program, syslog.LOG_PID, syslog.LOG_AUTHPRIV)


def tell_error(message: str) -> None:
    """Write one line at level error."""
    syslog.syslog(syslog.LOG_ERR, _printable(message))


def tell_notice(message: str) -> None:
    """Write one line at level notice."""
    syslog.syslog(syslog.LOG_NOTICE, _printable(message))


def tell_failure(error: PamMfaError) -> None:
    """Write an error's sentence and what to do next."""
    tell_error(f"{error}. {error.hint}" if error.hint else str(error))


def tell_fault(error: Exception) -> None:
    """Write where a fault of this program was raised; its text might quote what was typed."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_qualname} line {trace.tb_lineno}" if trace else "nowhere"
    tell_error(f"a fault of pam-mfa, please report it: {type(error).__name__} in {place}")


def _printable(message: str) -> str:
    """One line of printable characters: a user name must not forge a second one."""
    return message.encode("unicode_escape").decode("ascii")[:_LINE_MAX]
