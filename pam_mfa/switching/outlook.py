# SPDX-License-Identifier: Apache-2.0
"""Who would be locked out by a switch: root, the caller and every administrator, by name.

Foretold by ``forecast``; reads the host's groups and whether a user has a file of SSH keys.
"""

import grp
import os
import pwd
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pam_mfa.forecast import Forecast, forecast_logins
from pam_mfa.login_words import Outcome
from pam_mfa.store.layout import Layout
from pam_mfa.switching.catalog import CATALOG
from pam_mfa.switching.plan import Plan

GROUPS = ("sudo", "wheel", "admin")
_PEOPLE_MAX = 200
_PASSWD_GID, _GROUP_MEMBERS = 3, 3
_KEY_FILES = (".ssh/authorized_keys", ".ssh/authorized_keys2")


class Outlook(NamedTuple):
    """What a switch would do to those who keep the host."""

    forecasts: tuple[Forecast, ...]
    locked_out: tuple[Forecast, ...]
    closed: tuple[str, ...]  # services by which none of them could get in

    @property
    def people(self) -> list[str]:
        """Everybody who was looked at."""
        return list(dict.fromkeys(one.user for one in self.forecasts))


def foresee(layout: Layout, plan: Plan, caller: str) -> Outlook:
    """Return who of root, the caller and the administrators would get in by what.

    Raises:
        PamMfaError: there is no usable policy, or the devices cannot be read: everybody would be
            locked out.
    """
    people = list_people(layout.root, caller)
    found = tuple(forecast_logins(layout, plan.candidates, people))
    found = tuple(one for one in found if not _is_of_no_use(one, people))
    return weigh(found)


def weigh(forecasts: Iterable[Forecast]) -> Outlook:
    """Return which of these are refusals, and the services that refuse everybody."""
    found = tuple(forecasts)
    refused = tuple(one for one in found if one.outcome is Outcome.REFUSED)
    open_ones = {one.service for one in found if one.outcome is not Outcome.REFUSED}
    closed = dict.fromkeys(one.service for one in refused if one.service not in open_ones)
    return Outlook(found, refused, tuple(closed))


def list_people(root: Path, caller: str) -> list[str]:
    """Return root, the caller and the members of the administrators' groups."""
    members = _host_members() if root == Path("/") else _image_members(root)
    return list(dict.fromkeys(["root", *([caller] if caller else []), *sorted(members)]))[
        :_PEOPLE_MAX
    ]


def find_keyless(people: Sequence[str]) -> list[str]:
    """Return those of this host's accounts that have no file of SSH keys in their home."""
    found = []
    for name in people:
        try:
            home = Path(pwd.getpwnam(name).pw_dir)
        except KeyError:
            continue
        if not any(os.path.lexists(home / file) for file in _KEY_FILES):
            found.append(name)
    return found


def _is_of_no_use(one: Forecast, people: Sequence[str]) -> bool:
    """Whether root does not need a service; where root is alone, it needs them all."""
    entry = CATALOG.get(one.service)
    return (
        one.user == "root" and len(people) > 1 and entry is not None and entry.is_for_administrators
    )


def _host_members() -> set[str]:
    members: set[str] = set()
    for name in GROUPS:
        try:
            group = grp.getgrnam(name)
        except KeyError:
            continue
        members.update(group.gr_mem)
        members.update(one.pw_name for one in pwd.getpwall() if one.pw_gid == group.gr_gid)
    return members


def _image_members(root: Path) -> set[str]:
    members: set[str] = set()
    ids: set[str] = set()
    for fields in _read_fields(root / "etc/group"):
        if fields[0] in GROUPS and len(fields) > _GROUP_MEMBERS:
            members.update(name for name in fields[_GROUP_MEMBERS].split(",") if name)
            ids.add(fields[2])
    for fields in _read_fields(root / "etc/passwd"):
        if len(fields) > _PASSWD_GID and fields[_PASSWD_GID] in ids:
            members.add(fields[0])
    return members


def _read_fields(path: Path) -> list[list[str]]:
    try:
        text = path.read_text("utf-8", "surrogateescape")
    except OSError:
        return []
    return [line.split(":") for line in text.splitlines()]
