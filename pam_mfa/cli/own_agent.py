# SPDX-License-Identifier: Apache-2.0
"""The ssh-agent of whoever runs the command: which of its keys is meant, and its signature.

It is asked on the user's side only: the service of self-service never opens it. For root under
sudo it is the agent of the user who called sudo, where sudo leaves SSH_AUTH_SOCK in the
environment; another user's is not asked, nor root's own then.
"""

import os
import pwd
import socket
import sys
from collections.abc import Callable, Collection, Sequence
from threading import Event
from typing import NamedTuple, TypeVar

import click

from pam_mfa.errors import RefusedError
from pam_mfa.ssh_agent import Agent, AgentEnd, AgentError
from pam_mfa.ssh_keys import KeyFormatError, SshKey, fingerprint, key_blob, parse_blob
from pam_mfa.ssh_possession import HASH, format_armored
from pam_mfa.sshsig import signed_data
from pam_mfa.verifier.packets import close_all, peer_of

_Answer = TypeVar("_Answer")
_PATIENCE = 5.0  # seconds for connecting and the list of keys
_TOUCH = 60.0  # seconds for a touch, and a PIN before it
_UID_DIGITS = 10
_PATH_MAX = 107  # bytes; unix(7)
_HINTS = {
    AgentEnd.REFUSED: "Is it locked (ssh-add -X)? Was the key touched? A key with a PIN needs an "
    "askpass program where the agent runs.",
    AgentEnd.LATE: "Touch the key when it blinks. Run the command again.",
}


class HeldKey(NamedTuple):
    """A key of a security key that an agent holds."""

    key: SshKey
    blob: bytes  # as the agent knows it


class OwnAgent:
    """A connection to the agent, with the key that was chosen."""

    def __init__(self, connection: socket.socket, owner: int) -> None:
        """Take the connection, and the user id of who listens."""
        self._connection = connection
        self._owner = owner

    def require_meant(self, user: str, wanted: str) -> None:
        """Refuse to give a user the key of somebody else who is not known to mean it.

        An administrator's own key would otherwise become that user's, proven by a signature.

        Raises:
            RefusedError: the agent is another user's, and no key is named.
        """
        if not wanted and not belongs_to(self._owner, user):
            raise RefusedError(
                f"this is the ssh-agent of {_name_of(self._owner)}, and the key would become "
                f"{user}'s; nothing was enabled",
                hint="If that is meant, name the key: --fingerprint SHA256:...",
            )

    def choose(self, enrolled: Collection[SshKey], wanted: str) -> HeldKey:
        """Return the one key that is meant: by its fingerprint, the only new one, or as asked.

        Raises:
            RefusedError: there is none, or several and nobody to ask.
        """
        held = self._list()
        if wanted:
            for one in held:
                if fingerprint(one.key) == wanted:
                    return one
            raise RefusedError("the ssh-agent holds no key of a security key with this fingerprint")
        new = [one for one in held if one.key not in enrolled]
        if not new:
            raise RefusedError(
                "the ssh-agent holds no key of a security key"
                + (" that is not enrolled already" if held else ""),
                hint="Add it where the agent runs: ssh-add ~/.ssh/id_ed25519_sk. "
                "A locked agent shows no keys: ssh-add -X",
            )
        return new[0] if len(new) == 1 else _ask_which(new)

    def sign(self, held: HeldKey, namespace: str, challenge: str) -> str:
        """Return the text of a signature over a challenge.

        Raises:
            RefusedError: the agent gives none.
        """
        click.echo("Touch the security key on your own computer when it blinks.", err=True)
        data = signed_data(namespace, challenge.encode("utf-8", "surrogateescape"), HASH)
        signature = self._ask(lambda agent: agent.sign(held.blob, data), _TOUCH)
        return format_armored(held.key, namespace, signature)

    def _ask(self, do: Callable[[Agent], _Answer], seconds: float) -> _Answer:
        agent = Agent(self._connection, seconds, Event())
        try:
            return do(agent)
        except AgentError as error:
            raise RefusedError(
                f"{error}; nothing was enabled",
                hint=_HINTS.get(error.end, "Run the command again."),
            ) from error
        finally:
            close_all(agent.strays)

    def _list(self) -> list[HeldKey]:
        identities = self._ask(lambda agent: agent.list_identities(), _PATIENCE)
        found: dict[SshKey, HeldKey] = {}
        for identity in identities:
            try:
                key = parse_blob(identity.blob)
            except KeyFormatError:
                continue  # a key that lives in a file, or of a kind of its own
            if key not in found or identity.blob == key_blob(key):  # rather the key than its
                found[key] = HeldKey(key, identity.blob)  # certificate
        return list(found.values())


def open_agent() -> OwnAgent:
    """Connect to the agent that SSH_AUTH_SOCK names; it must be the caller's own.

    Raises:
        RefusedError: there is none, or it is another user's.
    """
    path = os.environ.get("SSH_AUTH_SOCK", "")
    if not path.startswith("/") or len(os.fsencode(path)) > _PATH_MAX:
        raise RefusedError(
            "there is no ssh-agent here: SSH_AUTH_SOCK is "
            + ("no absolute path that a socket can have" if path else "not set"),
            hint="Log in with ssh -A. sudo takes it away: sudo --preserve-env=SSH_AUTH_SOCK ...",
        )
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    click.get_current_context().call_on_close(connection.close)
    connection.settimeout(_PATIENCE)
    try:
        connection.connect(path)
        owner = peer_of(connection).uid
    except OSError as error:
        problem = error.strerror or "it does not answer"
        raise RefusedError(
            f"the ssh-agent at {path!r} cannot be reached: {problem}",
            hint="SSH_AUTH_SOCK may be of a login that has ended. Log in again with ssh -A.",
        ) from error
    if owner != _own_uid():
        raise RefusedError(
            f"the ssh-agent at {path!r} is of user id {owner}, not yours; it is not asked",
            hint="Run the command as the agent's user, or by sudo from that user's login.",
        )
    if os.geteuid() == 0:
        click.echo(f"Asking the ssh-agent of {_name_of(owner)}.", err=True)
    return OwnAgent(connection, owner)


def _own_uid() -> int:
    """Return whose agent is asked: the caller's own, and under sudo that of who called it.

    Then not root's own: SSH_AUTH_SOCK is that user's word, and root would write to any socket.
    """
    invoking = os.environ.get("SUDO_UID", "")
    is_number = invoking.isascii() and invoking.isdecimal() and len(invoking) <= _UID_DIGITS
    if os.geteuid() == 0 and is_number:
        return int(invoking)
    return os.geteuid()


def belongs_to(uid: int, user: str) -> bool:
    """Whether a user id is that of a user."""
    try:
        return pwd.getpwnam(user).pw_uid == uid
    except (KeyError, ValueError):
        return False


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"user id {uid}"


def _ask_which(held: Sequence[HeldKey]) -> HeldKey:
    lines = [f"{one.key.type} {fingerprint(one.key)}" for one in held]
    if not sys.stdin.isatty():
        raise RefusedError(
            f"the ssh-agent holds {len(held)} keys of security keys: {', '.join(lines)}",
            hint="Say which: --fingerprint SHA256:...",
        )
    for number, line in enumerate(lines, start=1):
        click.echo(f"  {number}  {line}")
    chosen: int = click.prompt("Which key", type=click.IntRange(1, len(held)))
    return held[chosen - 1]
