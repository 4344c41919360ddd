# SPDX-License-Identifier: Apache-2.0
"""Enabling SSH keys that live on a security key, by their public keys.

A part of ``lifecycle``, which is the public Python API. An administrator vouches that the key is
the user's: nothing is signed here. The security key itself stays with the user's own computer.
"""

from pam_mfa.audit import EventName
from pam_mfa.devices import SshKeyDevice, require_user, serial_number_of
from pam_mfa.enabling import Enabling, free_name, require_room
from pam_mfa.errors import RefusedError
from pam_mfa.ssh_keys import require_key

DEFAULT_NAME = "ssh-key"


class SshKeyEnabling(Enabling):
    """How SSH keys come to the users of one store."""

    def enable_ssh_key(
        self, user: str, public_key: str, name: str | None = None, *, may_be_in_file: bool = False
    ) -> SshKeyDevice:
        """Enable an SSH key of a security key for a user.

        Args:
            user: whose it is.
            public_key: the text of its ``.pub`` file, ``TYPE BASE64 COMMENT``.
            name: the device's; None: ``DEFAULT_NAME``, with a number where it is taken.
            may_be_in_file: whether a key counts that lives in a file (policy ``agent_keys: any``).

        Raises:
            RefusedError: it is no key of a security key, the user has it already, or the user has
                eight devices.
            BrokenSystemError: it could not be stored.
        """
        require_user(user)
        key = require_key(public_key, may_be_in_file=may_be_in_file)
        self._store.require_log()  # nothing is done that could not be recorded
        with self._files.lock():
            devices = self._files.read(user)
            chosen = name or free_name(DEFAULT_NAME, devices)
            require_room(user, chosen, devices)
            for one in devices:
                if isinstance(one, SshKeyDevice) and one.key == key:
                    raise RefusedError(f"{user} has this key already, as {one.serial_number}")
            serial_number = serial_number_of("ssh-key", user, chosen)
            made = SshKeyDevice(serial_number, chosen, self._now(), key)
            self._replace(EventName.ENABLE_MFA_DEVICE, user, (devices, (*devices, made)), made)
        return made
