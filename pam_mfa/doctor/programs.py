# SPDX-License-Identifier: Apache-2.0
"""sshd's and sudo's own settings, where they go past PAM or keep it from being asked."""

import re
from collections.abc import Iterator

from pam_mfa.doctor.finding import Finding, Level, fault, notice, ok, warning
from pam_mfa.doctor.view import View
from pam_mfa.errors import PamMfaError
from pam_mfa.policy import Rule
from pam_mfa.policy.conditions import Names
from pam_mfa.policy.decision import decides_in
from pam_mfa.switching.bypasses import MODULE
from pam_mfa.switching.sshd_blocks import Block
from pam_mfa.wire import Phase

_TIMEOUT = re.compile(r"timestamp_timeout\s*=\s*\"?(-?[0-9.]+)")
_KEPT = re.compile(r"env_keep\s*\+?=.*\bSSH_AUTH_SOCK\b")
_DEFAULT_MINUTES = 15.0  # of sudoers(5), where a builder has set no other
_PAST_PAM = ("pubkey", "gssapi", "hostbased")  # methods that ask nothing of PAM's auth phase
_GRACE = 110  # seconds that the module may take, by default


def check_sshd(view: View) -> Iterator[Finding]:
    """Ask sshd for its settings, in each Match block too; only where PAM has a line of ours."""
    service = next((one for one in view.services if one.name == "sshd"), None)
    if service is None or not any(service.lines_of(phase, MODULE) for phase in ("auth", "session")):
        return
    holds_keys = bool(service.lines_of("session", MODULE)) and _decides_sessions(view)
    try:
        settings = view.sshd_settings()
        found = list(_judge_sshd(settings, holds_keys=holds_keys))
        yield from found
        if not any(one.level in (Level.WARNING, Level.FAULT) for one in found):
            methods = settings.get("authenticationmethods", "any")
            yield ok("sshd", f"it asks PAM: AuthenticationMethods {methods}")
        for block in view.sshd_blocks():
            inside = _judge_sshd(view.sshd_settings(block), holds_keys=holds_keys)
            for one in inside:
                if one not in found:
                    yield _narrow(one, block)
    except PamMfaError as error:
        yield warning("sshd", f"its settings are not to be had: {error}", "See: sshd -t")


def _narrow(finding: Finding, block: Block) -> Finding:
    """Return a finding as one of a block: less bad, where it is for those who are named."""
    level = finding.level
    if block.names_persons:
        level = Level.NOTICE
    elif not block.is_for_everybody:
        level = min(level, Level.WARNING, key=list(Level).index)
    where = f"'Match {block.criteria}' (/etc/ssh/{block.file}, line {block.number})"
    advice = "Take the setting out of the block, unless those are meant to log in so."
    return Finding(level, finding.subject, f"for {where}: {finding.what}", advice)


def _decides_sessions(view: View) -> bool:
    """Whether a rule holds sshd's sessions to what was proven, so also those by a key alone."""
    return any(
        decides_in(rule, Phase.SESSION) and _may_be_about(rule, "sshd")
        for rule in (view.policy.rules if view.policy else ())
    )


def _judge_sshd(settings: dict[str, str], *, holds_keys: bool) -> Iterator[Finding]:
    advice = "pam-mfa switch on sshd writes what is needed; see the README."
    if settings.get("usepam") != "yes":
        yield fault("sshd", "UsePAM is no: nobody is asked for a code", advice)
    if settings.get("pamservicename", "sshd") != "sshd":
        yield fault(
            "sshd", f"PAMServiceName is {settings['pamservicename']}: /etc/pam.d/sshd is not asked",
            "Take the setting out, or protect that service as well.",
        )  # fmt: skip
    yield from _judge_methods(settings, advice, holds_keys=holds_keys)
    if settings.get("passwordauthentication") == "yes":
        yield warning(
            "sshd", "PasswordAuthentication is yes: sshd answers every prompt with the password, "
            "the code's too",
            advice,
        )  # fmt: skip
    grace = settings.get("logingracetime", "120")
    if grace.isdecimal() and 0 < int(grace) < _GRACE:
        yield warning(
            "sshd", f"LoginGraceTime is {grace} s, less than the {_GRACE} s that a login may take",
            "Lengthen it, or shorten the module's: timeout=SECONDS",
        )  # fmt: skip


def _judge_methods(settings: dict[str, str], advice: str, *, holds_keys: bool) -> Iterator[Finding]:
    methods = settings.get("authenticationmethods", "any")
    names = [one for one in _PAST_PAM if settings.get(f"{one}authentication") == "yes"]
    is_past = bool(names) if methods == "any" else any(
        "interactive" not in one and "password" not in one for one in methods.split()
    )  # fmt: skip
    if is_past and holds_keys:
        yield notice(
            "sshd", f"AuthenticationMethods is {methods}: a public key alone asks for no code; "
            "the policy's rules decide when its session begins",
            "Try it: a login by a key that nobody has enrolled must end at once.",
        )  # fmt: skip
    elif is_past:
        yield fault(
            "sshd", f"AuthenticationMethods is {methods}: a public key alone never asks PAM, and "
            f"so for no code (PermitRootLogin {settings.get('permitrootlogin', 'unknown')})",
            advice,
        )  # fmt: skip
    if settings.get("kbdinteractiveauthentication") != "yes" and not (is_past and holds_keys):
        yield fault("sshd", "KbdInteractiveAuthentication is no: PAM can ask nobody", advice)


def check_sudo(view: View) -> Iterator[Finding]:
    """Look at sudoers: how long a code holds there, and whether the agent's address is kept."""
    service = view.find_service("sudo")
    if service is None:
        return
    etc = view.root / "etc"
    paths = [etc / "sudoers", *sorted((etc / "sudoers.d").glob("*"))]
    text = "\n".join(view.read_text(path) for path in paths)
    found = _TIMEOUT.findall(text)
    minutes = float(found[-1]) if found else _DEFAULT_MINUTES
    has_account_line = bool(service.lines_of("account", MODULE))
    yield _judge_timestamp(minutes, _shortest_age(view), has_account_line=has_account_line)
    if _KEPT.search(text):
        yield notice(
            "sudo", "sudo keeps SSH_AUTH_SOCK, so what runs as root can use the caller's ssh-agent",
            f"If it is kept for {MODULE} alone, take it out: the module does without.",
        )  # fmt: skip


def _shortest_age(view: View) -> float:
    """Return the shortest MFA age, in minutes, of the rules that can be about sudo; 0: none."""
    ages = [
        rule.mfa_age / 60
        for rule in (view.policy.rules if view.policy else ())
        if rule.mfa_age and _may_be_about(rule, "sudo")
    ]
    return min(ages, default=0.0)


def _may_be_about(rule: Rule, service: str) -> bool:
    return all(
        one.key != "service" or not isinstance(one, Names) or service in one.names
        for one in rule.conditions
    )


def _judge_timestamp(minutes: float, age: float, *, has_account_line: bool) -> Finding:
    how = "for ever" if minutes < 0 else f"for {minutes:g} minutes"
    line = f"account required {MODULE} in /etc/pam.d/sudo; pam-mfa switch on writes it."
    if has_account_line:
        return ok("sudo", f"sudo remembers {how}; the account line is asked all the same")
    if age and (minutes < 0 or minutes > age):
        return warning(
            "sudo", f"sudo asks nobody again {how} on a terminal, though a rule's mfa_age is "
            f"{age:g} minutes: it has no account line",
            line,
        )  # fmt: skip
    if minutes < 0:
        return warning(
            "sudo", "sudo never asks again on a terminal (timestamp_timeout below zero)",
            "Defaults timestamp_timeout=15",
        )  # fmt: skip
    return notice(
        "sudo", f"sudo asks for neither password nor code again {how} on a terminal: it has no "
        "account line",
        line,
    )  # fmt: skip
