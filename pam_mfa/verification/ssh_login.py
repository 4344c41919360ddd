# SPDX-License-Identifier: Apache-2.0
"""Proof by the SSH login itself: a security key on the client, touched for sshd.

sshd has checked the signature, and that the key was touched, before PAM is asked; which key it was
stands in the *PAM* environment's SSH_AUTH_INFO_0. Only what a host program of root says for the
service sshd is believed: the variable that a user sets, in whatever file, is not read.
"""

import functools
from collections.abc import Generator
from typing import Any

from pam_mfa.audit import Outcome, Reason
from pam_mfa.devices import SshKeyDevice
from pam_mfa.ssh_keys import SshKey, fingerprint, parse_auth_info
from pam_mfa.store import Change, Claim, Known, Standing
from pam_mfa.verification.needs import Caller, Clock, Commit, Need, Verdict
from pam_mfa.verification.rules import is_remote
from pam_mfa.verification.scene import Scene, make_event, refuse, refuse_key
from pam_mfa.wire import Request, Result


def find_ssh_keys(request: Request, caller: Caller) -> tuple[SshKey, ...]:
    """Return the security keys by which this SSH login was signed."""
    if caller.uid != 0 or not is_remote(request.service):
        return ()
    return parse_auth_info(request.ssh_auth_info)


def verify_ssh_login(
    scene: Scene, keys: tuple[SshKey, ...], clock: Clock
) -> Generator[Need, Any, Verdict | None]:
    """Accept a login that an enrolled key has signed; return None where none has."""
    used = next((one for one in scene.enrollment.ssh_keys if one.key in keys), None)
    judge = functools.partial(_judge, scene, used, keys, clock)
    serial_numbers = (used.serial_number,) if used else ()
    change: Change = yield Commit(Claim(scene.enrollment.user_key, serial_numbers, judge))
    if change.accepted:
        return Verdict(Result.SUCCESS, Reason.SSH_KEY_ACCEPTED)
    return None


def _judge(
    scene: Scene,
    used: SshKeyDevice | None,
    keys: tuple[SshKey, ...],
    clock: Clock,
    known: Known,
) -> Change:
    now = clock()
    if used is None:
        return _refuse_unknown(scene, keys, now, known)
    if (refusal := refuse_key(scene, now, known, used)) is not None:
        return refusal
    event = make_event(scene, now, Outcome.SUCCESS, Reason.SSH_KEY_ACCEPTED, used)
    # Wrong codes stay counted: the key is no proof to sudo, so whoever has it could otherwise guess
    # codes there without end, by logging in anew after every few.
    return Change(
        accepted=True,
        events=(event,),
        used_steps={used.serial_number: 0},  # sshd keeps the counter to itself
        used_at=now,
    )


def _refuse_unknown(scene: Scene, keys: tuple[SshKey, ...], now: float, known: Known) -> Change:
    is_unreadable = scene.enrollment.standing in (Standing.UNREADABLE, Standing.OUT_OF_REACH)
    reason = Reason.DEVICES_UNREADABLE if is_unreadable else Reason.SSH_KEY_NOT_ENROLLED
    change = refuse(scene, now, reason, known.lock)
    event = change.events[0]
    details = filter(None, (", ".join(map(fingerprint, keys)), event.detail))
    return change._replace(events=(event._replace(detail="; ".join(details)),))
