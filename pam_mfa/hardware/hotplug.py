# SPDX-License-Identifier: Apache-2.0
"""Keys that come and go while somebody waits.

An event only says that it is time to look: ``receive`` lists the keys anew and compares, so a lost
or late event costs time and nothing else. With udevd the events are udev's, which come when the
rules have run and the node may be opened; without it they are the kernel's. Neither is sure to
come: the kernel's do not enter a container with a user namespace of its own, udev's do not enter
any other network namespace. So a waiter also looks each ``interval``.

From plugging in to ``receive``: with udev, udev's own time and about 1 ms; with the kernel's
events, 1 ms; without events, at most ``interval``.
"""

import select
import time
from types import TracebackType
from typing import Any, NamedTuple, Self

from pam_mfa.hardware import nodes
from pam_mfa.hardware.nodes import AttachedKey

_INTERVAL_WITH_UDEV = 1.0  # seconds
_INTERVAL_WITHOUT = 0.1  # seconds


class Changes(NamedTuple):
    """What is different from the last time; both empty where nothing is."""

    added: tuple[AttachedKey, ...]
    removed: tuple[AttachedKey, ...]


class Monitor:
    """The keys that are attached, kept up to date by ``receive``.

    For an event loop: watch ``descriptor`` for reading where there is one, and call ``receive``
    then; while somebody waits for a key, call it each ``interval`` seconds, too.
    """

    def __init__(self) -> None:
        """Listen first and list then, so that no key is missed between the two."""
        has_udev = nodes.UDEV_CONTROL.exists()
        self.interval = _INTERVAL_WITH_UDEV if has_udev else _INTERVAL_WITHOUT
        self._events = _open_events("udev" if has_udev else "kernel")
        if self._events is None:
            self.interval = _INTERVAL_WITHOUT
        self.keys = nodes.list_keys()

    @property
    def descriptor(self) -> int | None:
        """The descriptor that becomes readable with an event; None where the kernel gives none."""
        return None if self._events is None else int(self._events.fileno())

    def receive(self) -> Changes:
        """Return what changed since the last call. Does not block."""
        self._drain()
        before, self.keys = self.keys, nodes.list_keys()
        return Changes(
            tuple(key for key in self.keys if key not in before),
            tuple(key for key in before if key not in self.keys),
        )

    def wait(self, timeout: float) -> Changes:
        """Block until something changes, at most this many seconds."""
        give_up_at = time.monotonic() + timeout
        poll = select.poll()
        if self.descriptor is not None:
            poll.register(self.descriptor, select.POLLIN)
        while True:
            left = give_up_at - time.monotonic()
            poll.poll(max(0.0, min(left, self.interval)) * 1000)
            changes = self.receive()
            if changes.added or changes.removed or left <= 0:
                return changes

    def close(self) -> None:
        """Stop listening."""
        # pyudev has no close; the socket goes with the last reference.
        self._events = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening."""
        self.close()

    def _drain(self) -> None:
        try:
            while self._events is not None and self._events.poll(0) is not None:
                pass
        except OSError:
            pass  # ENOBUFS: events were lost, and the list says what they would have said


def wait_for_key(timeout: float) -> tuple[AttachedKey, ...]:
    """Return the attached keys as soon as there is one; none after this many seconds."""
    give_up_at = time.monotonic() + timeout
    with Monitor() as monitor:
        while not monitor.keys and (left := give_up_at - time.monotonic()) > 0:
            monitor.wait(left)
        return monitor.keys


def _open_events(source: str) -> Any:  # noqa: ANN401 - pyudev has no types
    """Return pyudev's monitor; None where netlink is not permitted, or libudev is missing."""
    import pyudev  # noqa: PLC0415 - slow, and most logins are without a key

    try:
        events = pyudev.Monitor.from_netlink(pyudev.Context(), source)
        events.filter_by("hidraw")
        events.start()
    except (OSError, ImportError):
        return None
    return events
