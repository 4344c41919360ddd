# SPDX-License-Identifier: Apache-2.0
"""The services that can be switched, and which lines each of them gets. Pure."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from pam_mfa.errors import RefusedError

ALL: Final = "all"
SSHD: Final = "sshd"


class Entry(NamedTuple):
    """One of them."""

    phases: tuple[str, ...]
    what: str  # it is, for people
    family: str = ""  # whoever has passed one of a family has passed all of it
    is_for_administrators: bool = False  # root passes it by itself, or has no use for it


_LOGIN = ("auth", "account", "session")
_ASKING = ("auth", "account")
CATALOG: Final[dict[str, Entry]] = {
    SSHD: Entry(_LOGIN, "SSH"),
    "sudo": Entry(_ASKING, "sudo", "sudo", is_for_administrators=True),
    "sudo-i": Entry(_ASKING, "sudo -i", "sudo", is_for_administrators=True),
    "login": Entry(_LOGIN, "the console"),
    "su": Entry(_ASKING, "su", "su"),
    "su-l": Entry(_ASKING, "su -", "su"),
    "polkit-1": Entry(_ASKING, "polkit"),
    "gdm-password": Entry(_ASKING, "GNOME's display manager"),
    "sddm": Entry(_ASKING, "KDE's display manager"),
    "lightdm": Entry(_ASKING, "the display manager LightDM"),
}


def choose_services(words: Sequence[str], is_there: Callable[[str], bool]) -> list[str]:
    """Return the services that are meant, in the order of the catalog.

    Args:
        words: names, or ``all``.
        is_there: whether the host has a service of this name.

    Raises:
        RefusedError: one is none that can be switched, or is not there.
    """
    for word in words:
        if word != ALL and word not in CATALOG:
            raise RefusedError(
                f"'{word}' is no service that can be switched",
                hint=f"One of: {', '.join(CATALOG)}, {ALL}. Another one gets its line by hand; "
                "the README says how.",
            )
    there = [name for name in CATALOG if is_there(name)]
    missing = [word for word in words if word != ALL and word not in there]
    if missing:
        raise RefusedError(
            f"this host has no PAM service '{missing[0]}'", hint=f"It has: {', '.join(there)}"
        )
    if ALL in words:
        if not there:
            raise RefusedError("this host has none of the services that can be switched")
        return there
    return [name for name in there if name in words]


def family_of(service: str) -> str:
    """Return the family of a service, or its own name."""
    return CATALOG[service].family or service if service in CATALOG else service
