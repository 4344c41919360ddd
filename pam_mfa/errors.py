# SPDX-License-Identifier: Apache-2.0
"""Errors with a sentence and a next step.

An error's text says what happened and to whom; ``hint`` says what to do next. A refused login
is not an error but a ``Verdict``.
"""


class PamMfaError(Exception):
    """The base of every error that this package raises on purpose."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep the sentence and what to do next."""
        super().__init__(message)
        self.hint = hint


class RefusedError(PamMfaError):
    """What was asked for is well understood and not allowed."""


class BrokenSystemError(PamMfaError):
    """Something on this host must be mended before anybody can be verified."""

    exit_status = 3


class DocumentError(BrokenSystemError):
    """A YAML document cannot be read; the text names the file, the line and the key."""


class UnsafeFileError(BrokenSystemError):
    """A file is not what it must be: its kind, owner, mode or size is wrong."""


class PolicyError(BrokenSystemError):
    """No policy can be had, so nothing can be decided."""


class SealError(BrokenSystemError):
    """A sealed secret cannot be opened: another key, another owner, or changed by somebody."""


class UnknownKeyError(SealError):
    """What sealed a secret is not among this host's keys."""


class StateError(BrokenSystemError):
    """The state cannot be read or written, so no code may be accepted."""


class UnreachableError(StateError):
    """The database cannot be reached: no connection to it, or no answer in time."""


class NoRightError(StateError):
    """The database does not let this host's role do that."""


class AuditError(BrokenSystemError):
    """A record cannot be made durable, so no success may be told."""


class WireError(PamMfaError):
    """A frame is not of this version, not whole, or not what was due."""


class SecurityKeyError(PamMfaError):
    """An attached security key cannot be used now; the base of what a key can do wrong."""


class KeyAccessError(SecurityKeyError):
    """This user may not open the key's node; somebody must mend that."""

    exit_status = 3


class UnsafeNodeError(SecurityKeyError):
    """What stands at a key's path is not that key's own device node."""


class KeyGoneError(SecurityKeyError):
    """The key is no longer attached, or another device is in its place."""


class KeyBusyError(SecurityKeyError):
    """Another program is using the key."""


class KeySilentError(SecurityKeyError):
    """The key did not finish its answer in time."""


class KeyFaultError(SecurityKeyError):
    """The key answered what no key may answer."""
