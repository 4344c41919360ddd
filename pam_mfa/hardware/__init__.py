# SPDX-License-Identifier: Apache-2.0
"""Security keys that are attached to this machine: udev and hidraw.

The only room that opens a device. It finds keys, opens them and carries bytes to and from them; it
decides nothing, knows no user, and verifies nothing. Nothing is imported here: a login that no key
takes part in must not pay for ``fido2`` and ``pyudev``.
"""
