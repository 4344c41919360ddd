# SPDX-License-Identifier: Apache-2.0
"""The end of a login that has proven nothing, in PAM's session phase.

There nobody can be asked any more: sshd answers no question, and has let the login in by a key
alone perhaps. What it shows of PAM's words there reaches the person, so the refusal says why.
"""

import functools

from pam_mfa import lockout
from pam_mfa.audit import Reason
from pam_mfa.policy import Mode
from pam_mfa.store import Change, Claim, Known
from pam_mfa.verification.needs import Attempt, Clock, Commit, Tell, Verdict
from pam_mfa.verification.rules import apply_mode, find_hindrance
from pam_mfa.verification.scene import Scene, refuse
from pam_mfa.wire import Result

_REFUSAL = "Refused: this login needs an MFA device, and none was used for it."
_SSH_KEY = (
    " Log in by an SSH key that lives on a security key and is enrolled here; "
    "your administrator enrolls it by: pam-mfa enable ssh-key"
)
_OTHER = " Log in in a way that asks for a verification code, or ask your administrator."


def refuse_session(scene: Scene, types: tuple[str, ...], clock: Clock) -> Attempt:
    """Refuse a login whose session may not begin; say so in the same words to everybody."""
    judge = functools.partial(_judge, scene, clock)
    change: Change = yield Commit(Claim(scene.enrollment.user_key, (), judge))
    verdict = apply_mode(scene.policy, Verdict(Result.DENIED, change.events[0].reason))
    if scene.policy.mode is Mode.ENFORCE:
        yield Tell(_REFUSAL + (_SSH_KEY if "ssh-key" in types else _OTHER))
    return verdict


def _judge(scene: Scene, clock: Clock, known: Known) -> Change:
    now = clock()
    is_locked = lockout.is_locked(known.lock, now)
    hindrance = find_hindrance(scene.enrollment.standing, is_locked=is_locked, can_be_right=True)
    return refuse(scene, now, hindrance or Reason.NOT_VERIFIED, known.lock)
