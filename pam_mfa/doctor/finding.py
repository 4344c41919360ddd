# SPDX-License-Identifier: Apache-2.0
"""What a check has found. Pure."""

import enum
from collections.abc import Iterable
from typing import NamedTuple


class Level(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTICE = "notice"  # worth knowing
    WARNING = "warning"  # somebody will be refused, or asked for less than you think
    FAULT = "fault"  # logins are refused, or let by


class Finding(NamedTuple):
    """One."""

    level: Level
    subject: str
    what: str
    advice: str = ""  # what to do


def ok(subject: str, what: str) -> Finding:
    """Return a finding of what is as it must be."""
    return Finding(Level.OK, subject, what)


def notice(subject: str, what: str, advice: str = "") -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(Level.NOTICE, subject, what, advice)


def warning(subject: str, what: str, advice: str) -> Finding:
    """Return a finding that should be mended."""
    return Finding(Level.WARNING, subject, what, advice)


def fault(subject: str, what: str, advice: str) -> Finding:
    """Return a finding that must be mended."""
    return Finding(Level.FAULT, subject, what, advice)


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 3 where there is a fault, 1 where there is a warning, else 0."""
    levels = {finding.level for finding in findings}
    return 3 if Level.FAULT in levels else 1 if Level.WARNING in levels else 0
