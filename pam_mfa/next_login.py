# SPDX-License-Identifier: Apache-2.0
"""What would happen at a user's next login, by PAM service.

Pure. Foreseen by the very predicates that a login is decided by (``policy.decide``, those of
``verification.rules`` and ``enrolling``), for the phases in which a service's file has
``pam_mfa.so``. It says what the module does when it is reached: whether the modules before it let a
login come so far, nobody can foresee.
"""

import datetime
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pam_mfa.audit import Reason
from pam_mfa.devices import (
    Bypass,
    Device,
    FidoDevice,
    SshKeyDevice,
    TokenDevice,
    VirtualDevice,
)
from pam_mfa.enrolling import find_refusal
from pam_mfa.lifecycle import DeviceStatus, UserStatus
from pam_mfa.login_words import (
    NOBODY,
    OPEN,
    WORDS,
    End,
    Outcome,
    describe_age,
    describe_question,
    name_ways,
)
from pam_mfa.module_line import MODULE, forwarded_digits, is_heeded, other_root
from pam_mfa.pam_services import Line, Service
from pam_mfa.policy import (
    Action,
    Context,
    Decision,
    Mode,
    Policy,
    UnknownGroupsError,
    asks_everyone,
    decide,
)
from pam_mfa.policy.explaining import is_open
from pam_mfa.store import Standing
from pam_mfa.verification import Verdict
from pam_mfa.verification.rules import (
    apply_mode,
    counts_in_agent,
    find_hindrance,
    is_acceptable,
    is_remote,
    judge_unenrolled,
    may_have_agent,
)
from pam_mfa.wire import Phase, Result

# Ways into a host that are worth a word where they ask for no code.
WELL_KNOWN = (
    "gdm-password", "lightdm", "login", "sddm", "sshd", "su", "su-l", "sudo", "sudo-i",
    "xrdp-sesman",
)  # fmt: skip
_PHASES = (Phase.AUTH, Phase.ACCOUNT, Phase.SESSION)


_ASKING = (Outcome.CODE, Outcome.TOUCH, Outcome.SSH_KEY)
_BINDING = (Outcome.CODE, Outcome.TOUCH, Outcome.SSH_KEY, Outcome.REFUSED)


class NextLogin(NamedTuple):
    """What would happen at one service."""

    service: str
    outcome: Outcome
    reason: Reason | None  # of the record that it would leave, where the code is not the reason
    text: str  # a sentence's second half, behind the service's name


def _know_no_groups(user: str) -> frozenset[str] | None:
    del user
    return None


class Situation(NamedTuple):
    """What the next login depends on, besides the service."""

    policy: Policy | None  # None: there is none that can be used
    root: str  # of the devices: a line of pam_mfa.so may name another one
    now: datetime.datetime  # UTC
    tty: str = ""
    rhost: str = ""
    # Those of the policy's groups that a user is in; asked for only where a rule depends on them.
    find_groups: Callable[[str], frozenset[str] | None] = _know_no_groups
    is_definite: bool = False  # whether terminal, remote host and time are the login's own


def is_relevant(service: Service) -> bool:
    """Whether a service has pam_mfa.so in any phase, or is one that people look for."""
    has_module = any(service.lines_of(phase.name.lower(), MODULE) for phase in _PHASES)
    return has_module or service.name in WELL_KNOWN


def foresee_logins(
    services: Iterable[Service], status: UserStatus, situation: Situation, *, has_account: bool
) -> list[NextLogin]:
    """Return what would happen at a user's next login, a service each.

    Args:
        services: those that are relevant.
        status: the user's devices, and whether they open.
        situation: policy, root and time.
        has_account: whether PAM's host programs find an account of this name.
    """
    prophecy = _Prophecy(status, situation, has_account)
    return [prophecy.foresee(service) for service in services]


class _Where(NamedTuple):
    """One phase of a login by a service."""

    service: str
    phase: Phase
    lines: dict[Phase, Line]

    @property
    def line(self) -> Line:
        """The phase's line of pam_mfa.so."""
        return self.lines[self.phase]


class _Prophecy(NamedTuple):
    """One user's."""

    status: UserStatus
    situation: Situation
    has_account: bool

    def foresee(self, service: Service) -> NextLogin:
        """Say what would happen at a service."""
        lines = {
            phase: found[0]
            for phase in _PHASES
            if (found := service.lines_of(phase.name.lower(), MODULE))
        }
        end = self._end(lines, service.name)
        if service.faults:
            end = end._replace(
                text=f"{end.text}; but PAM does not take its file: {service.faults[0]}"
            )
        return NextLogin(service.name, *end)

    def _end(self, lines: dict[Phase, Line], service: str) -> End:
        if not lines:
            return End(Outcome.NOT_ASKED, None, f"not asked ({MODULE} is not in its PAM file)")
        for line in lines.values():
            other = other_root(line, self.situation.root)
            if other:
                return End(Outcome.UNKNOWN, None, f"asks by the devices under {other}")
        if self.situation.policy is None:
            return End(Outcome.REFUSED, None, "refused: there is no usable policy")
        for phase, line in lines.items():
            end = self._end_of_phase(self.situation.policy, _Where(service, phase, lines))
            if end is not None:
                if phase is not Phase.SESSION and Phase.SESSION in lines:
                    end = self._mind_session(end, _Where(service, Phase.SESSION, lines))
                return _mind_control(end, line, phase)
        where = ", ".join(phase.name.lower() for phase in lines)
        if Phase.AUTH not in lines:
            text = f"not asked ({MODULE} is not in its auth phase, only in: {where})"
            return End(Outcome.NOT_ASKED, None, text)
        return End(Outcome.NOT_ASKED, None, "not asked")

    def _end_of_phase(self, policy: Policy, where: _Where) -> End | None:
        """Say how a login ends in a phase; None: it goes on as if the module were not there."""
        try:
            context, decision = self._decide(policy, where.phase, where.service)
        except UnknownGroupsError as error:
            return End(Outcome.REFUSED, None, f"refused: {error}")
        policy = policy._replace(mode=decision.mode)
        end = self._end_of_decision(policy, decision, where)
        if end is None:
            return None
        if decision.mfa_age and end.outcome in _ASKING:
            is_held = Phase.ACCOUNT in where.lines
            age = describe_age(decision, where.service, has_account_line=is_held)
            end = end._replace(text=f"{end.text}{age}")
        if decision.rule:
            end = end._replace(text=f"{end.text} (rule '{decision.rule}')")
        if not self.situation.is_definite and is_open(policy, context):
            end = end._replace(text=f"{end.text}{OPEN}")
        return end

    def _decide(self, policy: Policy, phase: Phase, service: str) -> tuple[Context, Decision]:
        """Decide what a login by a service would have to do.

        Raises:
            UnknownGroupsError: it depends on the user's groups, and they are not to be had.
        """
        situation, user = self.situation, self.status.user
        at = situation.now.timestamp()
        context = Context(phase, user, service, situation.tty, situation.rhost, at=at)
        try:
            return context, decide(policy, context)
        except UnknownGroupsError:
            context = context._replace(groups=situation.find_groups(user))
            return context, decide(policy, context)

    def _end_of_decision(  # noqa: PLR0911 - one for each action
        self, policy: Policy, decision: Decision, where: _Where
    ) -> End | None:
        if decision.action is Action.ENROLL:
            return self._enroll()
        if decision.action is Action.NOTHING:
            return None
        if decision.action is Action.SKIP:
            return End(Outcome.NOT_ASKED, Reason.SKIPPED_BY_RULE, "not asked")
        if decision.action is Action.DENY:
            reason, words = Reason.DENIED_BY_RULE, self._words(Reason.DENIED_BY_RULE)
            if policy.mode is Mode.REPORT_ONLY:
                text = f"not asked; it would be refused: {words} ({NOBODY})"
                return End(Outcome.NOT_REFUSED, reason, text)
            told = f", with the words: {decision.message}" if decision.message else ""
            return End(Outcome.REFUSED, reason, f"refused: {words}{told}")
        if self.status.standing is Standing.NOT_ENROLLED and not asks_everyone(policy):
            if decision.may_enroll:
                return self._enroll()
            reason, result = judge_unenrolled(
                policy, has_account=self.has_account, phase=where.phase
            )
            return self._pass_unasked(policy, reason, result, where)
        if where.phase is Phase.SESSION:
            return self._begin_session(policy, decision.devices, where)
        return self._verify(policy, decision.devices, where)

    def _begin_session(self, policy: Policy, types: tuple[str, ...], where: _Where) -> End:
        """Say what becomes of a session in which nothing is asked any more."""
        keys = [
            one
            for one in self.status.devices
            if isinstance(one.device, SshKeyDevice) and is_acceptable(one.device, types)
        ]
        reason = find_hindrance(
            self.status.standing,
            is_locked=self.status.locked_until is not None,
            can_be_right=bool(keys) and is_remote(where.service),
        )
        if reason is None:
            text = f"lets in where the login is signed by an enrolled SSH key ({name_ways(keys)})"
            return End(Outcome.SSH_KEY, None, text)
        words = self._words(reason)
        if policy.mode is Mode.REPORT_ONLY:
            return End(
                Outcome.NOT_REFUSED, reason, f"not asked; it would be refused: {words} ({NOBODY})"
            )
        return End(Outcome.REFUSED, reason, f"refused when its session begins: {words}")

    def _mind_session(self, end: End, where: _Where) -> End:
        """Say what the session phase has against a login that came so far."""
        policy = self.situation.policy
        if policy is None or end.outcome not in (*_ASKING, Outcome.NOT_ASKED):
            return end
        try:
            _, decision = self._decide(policy, where.phase, where.service)
        except UnknownGroupsError as error:
            return End(Outcome.REFUSED, None, f"refused when its session begins: {error}")
        if decision.mode is Mode.REPORT_ONLY or decision.action not in (Action.VERIFY, Action.DENY):
            return end
        is_let_by = self.status.standing is Standing.NOT_ENROLLED and not asks_everyone(policy)
        rule = f" (rule '{decision.rule}')"
        if decision.action is Action.VERIFY and is_let_by:
            return end
        ways = [one for one in self.status.devices if is_acceptable(one.device, decision.devices)]
        if ways and decision.action is Action.VERIFY:
            words = f"{end.text}; its session begins by {name_ways(ways)} only{rule}"
            return end._replace(text=words)
        is_denied = decision.action is Action.DENY
        reason = Reason.DENIED_BY_RULE if is_denied else Reason.NO_ACCEPTABLE_DEVICE
        words = f"refused when its session begins: {self._words(reason)}{rule}"
        return End(Outcome.REFUSED, reason, words)

    def _enroll(self) -> End | None:
        if self.status.standing is Standing.ENROLLED:
            return None
        reason = find_refusal(self.status.standing, may_enroll=self.has_account)
        if reason is not None:
            return End(Outcome.REFUSED, reason, f"refused: {self._words(reason)}")
        return End(Outcome.ENROLLS, None, "enrolls a device first (account phase)")

    def _pass_unasked(
        self, policy: Policy, reason: Reason, result: Result, where: _Where
    ) -> End | None:
        if result is Result.DENIED:
            return End(Outcome.REFUSED, reason, f"refused: {self._words(reason)}")
        if reason is Reason.UNENROLLED_ALLOWED:
            text = "not asked: no MFA device, and policy allows users without one"
        elif reason is Reason.ENROLLMENT_DUE:
            if Phase.ACCOUNT in where.lines:
                _, decision = self._decide(policy, Phase.ACCOUNT, where.service)
                if decision.action is Action.ENROLL:
                    return None  # what the account phase does, comes next
            text = f"not asked: policy says enroll, and {MODULE} is not in its account phase"
        else:
            text = f"not asked; it would be refused: {self._words(reason)} ({NOBODY})"
            return End(Outcome.NOT_REFUSED, reason, text)
        return End(Outcome.NOT_ASKED, reason, text)

    def _verify(self, policy: Policy, types: tuple[str, ...], where: _Where) -> End:
        """Say what becomes of a code, a touch, or a login that an SSH key has signed."""
        devices = [one for one in self.status.devices if is_acceptable(one.device, types)]
        keys = [one for one in devices if self._counts_as_key(policy, one.device, where)]
        makers = [
            one
            for one in devices
            if not isinstance(one.device, FidoDevice | SshKeyDevice) and not one.problem
        ]
        reason = find_hindrance(
            self.status.standing,
            is_locked=self.status.locked_until is not None,
            can_be_right=bool(makers or keys),
        )
        ways = [one for one in makers if self._is_way(one, where.line)]
        if reason is None and (ways or keys):
            return describe_question(policy, where.service, keys, ways)
        words = self._words(reason) if reason else "no code of theirs can be right any more"
        if reason is Reason.NO_ACCEPTABLE_DEVICE and devices:
            words = "no MFA device that counts at this service"
        verdict = apply_mode(policy, Verdict(Result.DENIED, reason))
        if verdict.result is Result.DENIED:
            return End(Outcome.REFUSED, reason, f"refused: {words}")
        text = f"asks, and lets in after any answer; it would be refused: {words} ({NOBODY})"
        return End(Outcome.NOT_REFUSED, reason, text)

    def _counts_as_key(self, policy: Policy, device: Device, where: _Where) -> bool:
        """Whether a key proves something at a service.

        The laptop's has signed for sshd, or is behind the ssh-agent of whoever runs sudo or su;
        another is attached to the machine.
        """
        if isinstance(device, FidoDevice):
            return not (self.situation.rhost or is_remote(where.service))
        # Where the password is typed with the code, both are asked for whatever has signed.
        if not isinstance(device, SshKeyDevice) or forwarded_digits(where.line):
            return False
        if is_remote(where.service):
            return device.key.is_on_security_key
        return may_have_agent(where.service) and counts_in_agent(device, policy)

    def _is_way(self, one: DeviceStatus, line: Line) -> bool:
        """Whether a code of a device can be right now, and typed at this line."""
        if isinstance(one.device, VirtualDevice | TokenDevice):
            digits = forwarded_digits(line)
            return digits in (0, one.device.parameters.digits)
        is_over = isinstance(one.device, Bypass) and one.device.expires_at <= self.situation.now
        return bool(one.codes_left) and not is_over and not forwarded_digits(line)

    def _words(self, reason: Reason) -> str:
        if reason is Reason.LOCKED and self.status.locked_until is not None:
            return f"locked until {self.status.locked_until:%Y-%m-%d %H:%M} UTC"
        return WORDS.get(reason, reason.value)


def summarize(logins: Iterable[NextLogin]) -> str:
    """Return what happens at the next login in a line: services that end alike together.

    Those that do not ask come last.
    """
    groups: dict[str, list[str]] = {}
    for login in logins:
        word = login.outcome.value
        if login.outcome is Outcome.REFUSED and login.reason is not None:
            word = f"refused ({login.reason.value.replace('_', ' ')})"
        groups.setdefault(word, []).append(login.service)
    words = sorted(groups, key=lambda word: word == Outcome.NOT_ASKED.value)
    return "; ".join(f"{word}: {', '.join(groups[word])}" for word in words)


def _mind_control(end: End, line: Line, phase: Phase) -> End:
    """Say where PAM would not heed the module's refusal."""
    if end.outcome not in _BINDING or is_heeded(line, phase):
        return end
    text = f"{end.text}; but its line says '{line.control}', so PAM lets in all the same"
    return end._replace(text=text)
