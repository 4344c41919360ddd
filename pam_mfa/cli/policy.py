# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa policy check`` and ``policy explain``."""

import datetime
import json
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

from pam_mfa.census import find_people
from pam_mfa.cli.session import Session, json_option, pass_session
from pam_mfa.devices import Bypass, require_user
from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.explanation import Login, explain_login
from pam_mfa.host import Accounts, read_services
from pam_mfa.host_groups import group_finder, has_account, has_group
from pam_mfa.pam_services import Service, parse_service
from pam_mfa.policy import DEVICE_TYPES, Policy
from pam_mfa.policy.checking import Facts, find_warnings
from pam_mfa.report import printable
from pam_mfa.store.policies import PolicySource, read_policy
from pam_mfa.wire import Phase

_MODULE_LINES = "auth required pam_mfa.so\naccount required pam_mfa.so"
_WORDS = {
    "nothing": "nothing is asked in this phase",
    "verify": "a verification is required",
    "skip": "let by without a question",
    "deny": "denied",
}


@click.group()
def policy() -> None:
    """The policy file."""


@policy.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@pass_session
def check(session: Session, file: Path | None) -> None:
    """Check the policy in force, or a FILE before it is put in its place.

    Tells everything that is wrong with it at once; what is only odd is a warning.
    """
    path = file or session.layout.policy
    found, errors = PolicySource(path).check()
    for error in errors[:-1]:
        click.echo(f"pam-mfa: {error}.", err=True)
        if error.hint:
            click.echo(error.hint, err=True)
    if errors:
        raise errors[-1]
    for warning in find_warnings(found, _find_facts(session, found)):
        click.echo(printable(f"Warning: {warning}."), err=True)
    rules = f"{len(found.rules)} rules, " if found.rules else ""
    click.echo(
        f"{path} is sound: mode {found.mode}, {rules}users without a device: {found.unenrolled}, "
        f"{found.lockout.failures} wrong codes lock for {found.lockout.lock_for:.0f} s."
    )


def _find_facts(session: Session, found: Policy) -> Facts:
    if session.layout.root != Path("/"):  # the accounts there are not this host's
        return Facts(
            _is_anything, _is_anything, _find_root_types(session), frozenset(), time.time()
        )
    groups = group_finder(found.groups)("root") if found.groups else frozenset()
    return Facts(
        has_account,
        has_group,
        _find_root_types(session),
        groups,
        time.time(),
    )


def _is_anything(name: str) -> bool:
    del name
    return True


def _find_root_types(session: Session) -> Collection[str] | None:
    """Return the types of root's devices that can be used; None where nobody can say.

    Where the console's login does not ask the module, root needs none.
    """
    if os.geteuid() != 0 or not session.layout.devices.is_dir() or not _console_asks(session):
        return None
    try:
        (status,) = session.lifecycle.user_statuses(["root"])
    except BrokenSystemError:
        return None
    types: set[str] = set()
    for one in status.devices:
        if not one.problem and one.codes_left != 0:
            types |= set(DEVICE_TYPES) if isinstance(one.device, Bypass) else {one.device.type}
    return types


def _console_asks(session: Session) -> bool:
    services = [one for one in read_services(session.layout.root) if one.name == "login"]
    return all(one.lines_of("auth", "pam_mfa.so") for one in services)


@policy.command()
@click.argument("user")
@click.option("--service", required=True, help="The PAM service, as sshd or sudo.")
@click.option("--rhost", default="", help="The remote host's address, as PAM has it.")
@click.option("--tty", default="", help="The terminal, as tty1 or pts/0.")
@click.option(
    "--phase",
    type=click.Choice([one.name.lower() for one in Phase]),
    default="auth",
    show_default=True,
    help="The phase of the login whose rules are shown.",
)
@click.option("--at", "moment", help="When, as 2026-11-24T08:00 (UTC) or ...T09:00+01:00.")
@json_option
@pass_session
def explain(  # noqa: PLR0913 - of one login
    session: Session,
    user: str,
    *,
    service: str,
    rhost: str,
    tty: str,
    phase: str,
    moment: str | None,
    as_json: bool,
) -> None:
    """Explain what a login of USER would be asked, and why: each rule, the verdict, the devices."""
    if session.is_own:
        raise RefusedError("only root can have logins explained", hint="Run it by sudo.")
    require_user(user)
    found = read_policy(session.layout.policy)
    groups = group_finder(found.groups)(user) if found.groups else frozenset()
    root = session.layout.root
    login = Login(
        user, _find_service(root, service), rhost, tty, _parse_moment(moment), groups,
        Phase[phase.upper()], session.lifecycle.remembered(user),
    )  # fmt: skip
    (person,) = find_people(session.lifecycle, Accounts(root), [user])
    is_account = person.has_account is not False
    row = explain_login(found, login, person.status, str(root), has_account=is_account)
    if as_json:
        click.echo(json.dumps(row, indent=2))
    else:
        _print(row)


def _find_service(root: Path, name: str) -> Service:
    """Return a PAM service; one that asks the module, where there is none of this name."""
    for service in read_services(root):
        if service.name == name:
            return service
    note = f"Note: there is no PAM service '{name}'; this is for one that has pam_mfa.so."
    click.echo(printable(note), err=True)
    return parse_service(name, lambda _: _MODULE_LINES)


def _parse_moment(text: str | None) -> datetime.datetime:
    if text is None:
        return datetime.datetime.now(datetime.UTC)
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return moment.astimezone(datetime.UTC)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter("is no time as 2026-11-24T08:00", param_hint="--at") from error


def _print(row: dict[str, Any]) -> None:
    where = "".join(
        f", {word} {row[key]}" for key, word in (("rhost", "from"), ("tty", "terminal")) if row[key]
    )
    lines = [f"{row['user']} by {row['service']}{where}, at {row['at']}:"]
    for rule in row["rules"]:
        matches = {True: "would match", False: "does not match", None: "is not known to match"}
        word = "decides" if rule["decides"] else matches[rule["matches"]]
        lines.append(f"  rule '{rule['name']}' ({rule['place']}) {word}")
        marks = {True: "yes", False: "no", None: "unknown"}
        lines += [f"    {marks[one['holds']]}: {one['text']}" for one in rule["conditions"]]
    lines.append(_describe_verdict(row["verdict"]))
    for device in row["devices"]:
        word = "would do" if device["would_do"] else "would not do"
        lines.append(f"  {device['serial_number']} ({device['type']}) {word}")
    if not row["devices"]:
        lines.append("  no MFA device")
    words = {True: "counts", False: "does not count", None: "counts in its own session alone"}
    lines += [
        f"  verified {one['age']} s before by {one['device']} ({one['service']}) "
        f"{words[one['counts']]}"
        for one in row["remembered"]
    ]
    lines.append(f"Next login by {row['service']}: {row['next_login']['text']}")
    for line in lines:
        click.echo(printable(line))


def _describe_verdict(verdict: dict[str, Any] | None) -> str:
    if verdict is None:
        return "Verdict: unavailable, for the user's groups cannot be had"
    by = f"the rule '{verdict['rule']}'" if verdict["rule"] else "the defaults, for no rule matches"
    types = f" by one of {', '.join(verdict['devices'])}" if verdict["devices"] else ""
    age = (
        f", or a verification of the last {verdict['mfa_age']:.0f} s (scope {verdict['scope']})"
        if verdict["mfa_age"]
        else ""
    )
    return f"Verdict: {_WORDS[verdict['action']]}{types}{age}; by {by}; mode {verdict['mode']}"
