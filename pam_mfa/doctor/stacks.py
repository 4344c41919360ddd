# SPDX-License-Identifier: Apache-2.0
"""PAM stacks: what lets in without us, what does not heed us, what is in the wrong order."""

from collections.abc import Iterator

from pam_mfa.doctor.finding import Finding, fault, notice, ok, warning
from pam_mfa.doctor.view import View
from pam_mfa.next_login import WELL_KNOWN
from pam_mfa.pam_services import Line, Service
from pam_mfa.switching.bypasses import MODULE, find_bypasses, name_of

SUBJECT = "PAM"
_PASSWORDS = ("pam_unix.so", "pam_sss.so", "pam_ldap.so", "pam_krb5.so", "pam_winbind.so")
# Of other modules for a second factor: whoever has none is let by.
_OPEN_WORDS = ("nullok", "nouserok", "alwaysok", "user_unknown=ignore")
_OTHERS = ("pam_google_authenticator.so", "pam_u2f.so", "pam_oath.so", "pam_duo.so")


def check_stacks(view: View) -> Iterator[Finding]:
    """Look at every service that has the module."""
    for service in view.asking:
        found = list(_check_service(service))
        yield from found
        if not found:
            yield ok(SUBJECT, f"{service.name} comes to {MODULE} whatever a module before it says")
    if not view.asking:
        yield notice(
            SUBJECT, "no service asks for a code yet", "Switch one on: pam-mfa switch on sudo"
        )
        return
    silent = [
        one.name for one in view.services if one.name in WELL_KNOWN and one not in view.asking
    ]
    for name in silent:
        yield notice(SUBJECT, f"{name} asks for no code", f"If it should: pam-mfa switch on {name}")


def _check_service(service: Service) -> Iterator[Finding]:
    name = service.name
    for words in service.faults:
        yield fault(
            SUBJECT, f"{name}: PAM does not take its file: {words}",
            "Mend that line; until then PAM refuses the service, or asks for less.",
        )  # fmt: skip
    for bypass in find_bypasses(service):
        line = bypass.line
        text = f"{name}: {_describe(line)} lets in without coming to {MODULE}"
        if bypass.is_choice:
            yield notice(SUBJECT, f"{text}, for those that it names")
        else:
            yield fault(
                SUBJECT, text,
                f"Make it 'required', or put the line of {MODULE} before it, or include the file "
                "with 'substack'.",
            )  # fmt: skip
    lines = [line for line in service.lines if line.type == "auth"]
    ours = next(at for at, line in enumerate(lines) if name_of(line) == MODULE)
    yield from _check_order(name, lines, ours)
    yield from _check_open_words(name, lines)
    yield from _check_session(service)


def _check_order(name: str, lines: list[Line], ours: int) -> Iterator[Finding]:
    line = lines[ours]
    if not line.is_binding("auth_err"):
        yield fault(
            SUBJECT, f"{name}: {_describe(line)} is '{line.control}', so a refusal lets in",
            "Make it 'required'.",
        )  # fmt: skip
    passwords = [at for at, one in enumerate(lines) if name_of(one) in _PASSWORDS]
    is_joined = any(word.startswith("forward_pass") for word in line.arguments)
    if passwords and ours < passwords[0] and not is_joined:
        yield notice(
            SUBJECT, f"{name}: the code is asked for before the password",
            "Strangers can lock users out by wrong codes; behind the password they cannot.",
        )  # fmt: skip


def _check_open_words(name: str, lines: list[Line]) -> Iterator[Finding]:
    for line in lines:
        words = [word for word in line.arguments if word in _OPEN_WORDS]
        if words and name_of(line) in _OTHERS:
            yield warning(
                SUBJECT, f"{name}: {_describe(line)} has '{words[0]}': it asks who has enrolled "
                "there, and nobody else",
                f"Take the line out when everybody has moved to {MODULE}.",
            )  # fmt: skip


def _check_session(service: Service) -> Iterator[Finding]:
    lines = [line for line in service.lines if line.type == "session"]
    ours = next((at for at, line in enumerate(lines) if name_of(line) == MODULE), None)
    for line in lines[: ours or 0]:
        if name_of(line) == "pam_env.so" and "user_readenv=1" in line.arguments:
            yield fault(
                SUBJECT, f"{service.name}: {_describe(line)} lets users set variables that the "
                f"session line of {MODULE} behind it reads as sshd's",
                f"Put the session line of {MODULE} before it.",
            )  # fmt: skip


def _describe(line: Line) -> str:
    return f"{name_of(line)} ({line.file}, line {line.number})"
