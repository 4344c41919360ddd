# SPDX-License-Identifier: Apache-2.0
"""One attempt at a login, from the request to the verdict.

Free of I/O style: an attempt is a generator that yields what it needs (``needs``) and is sent the
answer, so the same steps are driven by asyncio in the daemon and by blocking calls on demand.
``attempt`` has the order of the steps, ``codes`` and ``touch`` one way to prove each. What has to
be verified, ``policy`` decides, for the context that ``deciding`` finds; when a user is locked,
``lockout`` does.
"""

from pam_mfa.verification.attempt import PROMPT, attempt, carry_out
from pam_mfa.verification.codes import NEXT_PROMPT
from pam_mfa.verification.deciding import Charge, find_decision
from pam_mfa.verification.needs import (
    Ask,
    Attempt,
    Caller,
    Clock,
    Commit,
    Complain,
    Listen,
    Look,
    Machine,
    Need,
    Tell,
    Verdict,
    Work,
)

__all__ = [
    "NEXT_PROMPT",
    "PROMPT",
    "Ask",
    "Attempt",
    "Caller",
    "Charge",
    "Clock",
    "Commit",
    "Complain",
    "Listen",
    "Look",
    "Machine",
    "Need",
    "Tell",
    "Verdict",
    "Work",
    "attempt",
    "carry_out",
    "find_decision",
]
