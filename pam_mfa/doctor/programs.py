# SPDX-License-Identifier: Apache-2.0
"""sshd's and sudo's own settings, where they go past PAM or keep it from being asked."""

import re
from collections.abc import Iterator

from pam_mfa.doctor.finding import Finding, fault, notice, ok, warning
from pam_mfa.doctor.view import View
from pam_mfa.errors import PamMfaError
from pam_mfa.policy.conditions import Names
from pam_mfa.switching.bypasses import MODULE

_TIMEOUT = re.compile(r"timestamp_timeout\s*=\s*\"?(-?[0-9.]+)")
_KEPT = re.compile(r"env_keep\s*\+?=.*\bSSH_AUTH_SOCK\b")
_DEFAULT_MINUTES = 15.0  # of sudoers(5), where a builder has set no other
_GRACE = 110  # seconds that the module may take, by default


def check_sshd(view: View) -> Iterator[Finding]:
    """Ask sshd for its settings; only where it has a line of the module's."""
    if view.find_service("sshd") is None:
        return
    try:
        settings = view.sshd_settings()
    except PamMfaError as error:
        yield warning("sshd", f"its settings are not to be had: {error}", "See: sshd -t")
        return
    found = list(_judge_sshd(settings))
    yield from found
    if not found:
        yield ok("sshd", f"it asks PAM: AuthenticationMethods {settings['authenticationmethods']}")


def _judge_sshd(settings: dict[str, str]) -> Iterator[Finding]:
    advice = "pam-mfa switch on sshd writes what is needed; see the README."
    if settings.get("usepam") != "yes":
        yield fault("sshd", "UsePAM is no: nobody is asked for a code", advice)
    methods = settings.get("authenticationmethods", "any")
    is_key_enough = methods == "any" and settings.get("pubkeyauthentication") == "yes"
    if is_key_enough or any("pam" not in one and "interactive" not in one
                            for one in methods.split() if one != "any"):  # fmt: skip
        yield fault(
            "sshd", f"AuthenticationMethods is {methods}: a public key alone never asks PAM, and "
            f"so for no code (PermitRootLogin {settings.get('permitrootlogin', 'unknown')})",
            advice,
        )  # fmt: skip
    if settings.get("kbdinteractiveauthentication") != "yes":
        yield fault("sshd", "KbdInteractiveAuthentication is no: PAM can ask nobody", advice)
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
        if rule.mfa_age
        and all(
            one.key != "service" or not isinstance(one, Names) or "sudo" in one.names
            for one in rule.conditions
        )
    ]
    return min(ages, default=0.0)


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
