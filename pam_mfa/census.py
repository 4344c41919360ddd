# SPDX-License-Identifier: Apache-2.0
"""Everybody whom logins concern: accounts that can log in, and names that have a device file.

Joins what the host says of its accounts with what the store says of devices. Reads only.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pam_mfa.host import Account, Accounts
from pam_mfa.lifecycle import Lifecycle, UserStatus
from pam_mfa.store import Standing


class Person(NamedTuple):
    """One of them."""

    status: UserStatus
    account: Account | None
    has_account: bool | None  # None: there are no accounts to be read under this root


def count_everybody(
    lifecycle: Lifecycle, accounts: Accounts, *, are_opened: bool = True
) -> Iterator[Person]:
    """Go through accounts that can log in and names that have a device file, by name.

    Device files of which it cannot be told whose they are, come last, under the file's name.

    Args:
        lifecycle: of the devices.
        accounts: of the host.
        are_opened: try whether each device's seed opens; else no seed is touched.

    Raises:
        BrokenSystemError: the devices or the state cannot be read.
    """
    entries = lifecycle.entries()
    names = {entry.user for entry in entries if not entry.problem} | set(accounts.names())
    yield from find_people(lifecycle, accounts, sorted(names), are_opened=are_opened)
    for entry in entries:
        if entry.problem:
            status = UserStatus(entry.user, Standing.UNREADABLE, (), None, 0, entry.problem)
            yield Person(status, None, False if accounts.are_known else None)


def find_people(
    lifecycle: Lifecycle, accounts: Accounts, names: Iterable[str], *, are_opened: bool = True
) -> Iterator[Person]:
    """Go through these names, in their order."""
    for status in lifecycle.user_statuses(names, are_opened=are_opened):
        account = accounts.find(status.user)
        yield Person(status, account, account is not None if accounts.are_known else None)
