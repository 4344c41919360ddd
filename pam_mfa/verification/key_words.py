# SPDX-License-Identifier: Apache-2.0
"""What a person is told of a security key: never what only its owner may know."""

from pam_mfa.hardware.keys import End, Untouched


def describe_attempts(outcome: Untouched) -> str:
    """Return how often the PIN may still be tried."""
    if outcome.attempts_left < 0:
        return "try again"
    noun = "attempt" if outcome.attempts_left == 1 else "attempts"
    return f"{outcome.attempts_left} {noun} left before the key blocks itself"


def describe_end(name: str, outcome: Untouched) -> str:
    """Return what a person is told of a key that gave no answer."""
    told = {
        End.TIMED_OUT: f"Your security key ({name}) was not touched in time.",
        End.DENIED: f"Your security key ({name}) was told to refuse.",
        End.GONE: f"Your security key ({name}) was pulled out.",
        End.BUSY: f"Your security key ({name}) is busy with another program.",
        End.PIN_LOCKED_UNTIL_REPLUGGED: (
            f"Too many wrong PINs: pull your security key ({name}) out and attach it again."
        ),
        End.PIN_BLOCKED: (
            f"The PIN of your security key ({name}) is blocked. Only a reset, which erases the "
            "key, ends that: use another device and tell your administrator."
        ),
        End.NOT_VERIFIED: f"Your security key ({name}) did not recognize you.",
    }
    return told.get(outcome.end, f"Your security key ({name}) cannot be used now.")
