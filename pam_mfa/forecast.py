# SPDX-License-Identifier: Apache-2.0
"""What would happen at next logins, asked by a process that stays root.

Devices are read by a child that is the service user, as every file of ours is; the parent keeps its
rights and gets the answer as JSON by a pipe. Has no rules of its own: ``next_login`` has.
"""

import datetime
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from pam_mfa.census import Person, count_everybody, find_people
from pam_mfa.errors import BrokenSystemError, PamMfaError
from pam_mfa.host import Accounts
from pam_mfa.host_groups import group_finder
from pam_mfa.lifecycle import open_lifecycle
from pam_mfa.login_words import Outcome
from pam_mfa.next_login import NextLogin, Situation, foresee_logins
from pam_mfa.pam_services import Service
from pam_mfa.store.layout import Layout
from pam_mfa.store.policies import read_policy

_PEOPLE_MAX = 5000  # of whom nobody is named: a look at all of 100,000 takes half a minute
_CHUNK = 1 << 16


class Forecast(NamedTuple):
    """One user's next login by one service."""

    user: str
    service: str
    outcome: Outcome
    text: str  # a sentence's second half, behind the service's name


def forecast_logins(
    layout: Layout, services: Sequence[Service], users: Sequence[str] | None
) -> list[Forecast]:
    """Return what would happen, by user and service.

    Args:
        layout: of the devices and the policy.
        services: as they are, or as they would be.
        users: whose logins; None: the first thousands of all that can log in.

    Raises:
        BrokenSystemError: the policy or the devices cannot be read.
        RefusedError: the caller is not root.
    """
    return [
        Forecast(row["user"], row["service"], Outcome(row["outcome"]), row["text"])
        for row in ask_child(lambda: _foresee(layout, services, users))
    ]


def ask_child(question: Callable[[], Any]) -> Any:  # noqa: ANN401 - what JSON can hold
    """Return what a function returns that runs in a child, whose rights may be given up there.

    Raises:
        PamMfaError: the function did, as a broken system or a refusal.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(writing, question)
    os.close(writing)
    parts = []
    while part := os.read(reading, _CHUNK):
        parts.append(part)
    os.close(reading)
    os.waitpid(child, 0)
    try:
        answer = json.loads(b"".join(parts))
    except ValueError as error:
        raise BrokenSystemError("the devices could not be looked at: the process ended") from error
    if "error" in answer:
        failed = PamMfaError(answer["error"], hint=answer["hint"])
        failed.exit_status = answer["exit_status"]
        raise failed
    return answer["answer"]


def _answer(writing: int, question: Callable[[], Any]) -> NoReturn:
    """Write the answer and end, without what the parent has registered for its own end."""
    try:
        try:
            answer = {"answer": question()}
        except PamMfaError as error:
            answer = {"error": str(error), "hint": error.hint, "exit_status": error.exit_status}
        data = json.dumps(answer).encode("ascii")
        while data:
            data = data[os.write(writing, data) :]
    finally:
        os._exit(0)


def _foresee(
    layout: Layout, services: Sequence[Service], users: Sequence[str] | None
) -> list[dict[str, object]]:
    policy = read_policy(layout.policy)
    accounts = Accounts(layout.root)
    now = datetime.datetime.now(datetime.UTC)
    finder = group_finder(policy.groups)
    situation = Situation(policy, str(layout.root), now, find_groups=finder)
    with open_lifecycle(layout.root) as lifecycle:
        people = (
            find_people(lifecycle, accounts, users)
            if users is not None
            else count_everybody(lifecycle, accounts)
        )
        rows: list[dict[str, object]] = []
        for count, person in enumerate(people):
            if count >= _PEOPLE_MAX:
                break
            rows += [_row(person, login) for login in _logins(person, services, situation)]
        return rows


def _logins(person: Person, services: Sequence[Service], situation: Situation) -> list[NextLogin]:
    is_account = person.has_account is not False
    return foresee_logins(services, person.status, situation, has_account=is_account)


def _row(person: Person, login: NextLogin) -> dict[str, object]:
    return {
        "user": person.status.user,
        "service": login.service,
        "outcome": login.outcome.value,
        "text": login.text,
    }
