# SPDX-License-Identifier: Apache-2.0
"""Keys that come and go while somebody waits."""

import select
import threading
import time
from collections.abc import Callable

import pytest
import pyudev
from usb_machine import KEYBOARD, Machine, Plugged, Product

from pam_mfa.hardware import hotplug
from pam_mfa.hardware.hotplug import Changes, Monitor, wait_for_key
from pam_mfa.hardware.nodes import AttachedKey

pytest_plugins = ["machine_fixtures"]

PATIENCE = 20.0  # seconds that a loaded machine may take


def is_readable(monitor: Monitor, seconds: float = PATIENCE) -> bool:
    """Whether an event comes within this time."""
    assert monitor.descriptor is not None
    return bool(select.select([monitor.descriptor], [], [], seconds)[0])


def in_the_background(action: Callable[[], object]) -> list[threading.Thread]:
    """Start something beside the test."""
    thread = threading.Thread(target=action)
    thread.start()
    return [thread]


@pytest.fixture(params=["udev", "kernel"])
def source(request: pytest.FixtureRequest, machine: Machine) -> str:
    """Run a test with udevd's events, and with the kernel's."""
    if request.param == "udev":
        machine.start_udevd()
    return str(request.param)


def test_plug_and_unplug(machine: Machine, source: str) -> None:
    """A key's coming and going make the descriptor readable, and are told once each."""
    assert source in ("udev", "kernel")
    with Monitor() as monitor:
        plugged = machine.plug()
        assert is_readable(monitor)
        (key,) = monitor.receive().added
        assert plugged.path == key.path
        assert Changes((), ()) == monitor.receive()
        assert not is_readable(monitor, 0)
        machine.unplug(plugged)
        assert is_readable(monitor)
        assert Changes((), (key,)) == monitor.receive()
        assert () == monitor.keys


def test_other_devices_change_nothing(machine: Machine) -> None:
    """A keyboard's coming is no change."""
    with Monitor() as monitor:
        machine.plug(KEYBOARD)
        assert Changes((), ()) == monitor.receive()


def test_back_under_another_name(machine: Machine) -> None:
    """A key that is pulled out and plugged in again is another one, under another name."""
    first = machine.plug()
    with Monitor() as monitor:
        machine.unplug(first)
        second = machine.plug()
        changes = monitor.receive()
        assert [first.path] == [key.path for key in changes.removed]
        assert [second.path] == [key.path for key in changes.added]


def test_attached_from_the_start(machine: Machine) -> None:
    """A key that is attached when the monitor begins is known, and no change."""
    plugged = machine.plug()
    with Monitor() as monitor:
        assert [plugged.path] == [key.path for key in monitor.keys]
        assert Changes((), ()) == monitor.receive()


def test_lost_events(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where events were lost, the next look finds the key all the same."""
    with Monitor() as monitor:
        plugged = machine.plug()

        def overrun(*_: object) -> None:
            raise OSError(105, "No buffer space available")

        monkeypatch.setattr(pyudev.Monitor, "poll", overrun)
        assert [plugged.path] == [key.path for key in monitor.receive().added]


def wait_beside(action: Callable[[], Plugged]) -> tuple[tuple[AttachedKey, ...], Plugged]:
    """Wait for a key while something happens; return what was waited for."""
    results: list[Plugged] = []
    threads = in_the_background(lambda: results.append(action()))
    began = time.monotonic()
    keys = wait_for_key(PATIENCE)
    assert time.monotonic() - began < PATIENCE, "found by the last look only"
    for thread in threads:
        thread.join()
    return keys, results[0]


def test_wait_for_key(machine: Machine, source: str) -> None:
    """Waiting ends when a key is plugged in."""
    assert source in ("udev", "kernel")
    keys, plugged = wait_beside(machine.plug)
    assert [plugged.path] == [key.path for key in keys]


def test_wait_without_netlink(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where netlink is not permitted, a key is found by looking again and again."""

    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(pyudev.Monitor, "from_netlink", refuse)
    with Monitor() as monitor:
        assert monitor.descriptor is None
        assert 0.1 == monitor.interval
    keys, plugged = wait_beside(machine.plug)
    assert [plugged.path] == [key.path for key in keys]


def test_wait_where_events_do_not_come(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deaf socket, as in another network namespace, delays a key by the interval only."""
    machine.start_udevd()
    events = pyudev.Monitor.from_netlink(pyudev.Context())  # never started: nothing comes
    monkeypatch.setattr(hotplug, "_open_events", lambda _: events)
    monkeypatch.setattr(pyudev.Monitor, "poll", lambda *_: None)
    keys, plugged = wait_beside(machine.plug)
    assert [plugged.path] == [key.path for key in keys]


def test_wait_in_vain(machine: Machine) -> None:
    """Waiting ends after its time with no key, though other devices come."""
    machine.plug(KEYBOARD)
    machine.plug(Product(tag="0"))
    assert () == wait_for_key(0.05)


def test_wait_with_a_key_attached(machine: Machine) -> None:
    """Waiting does not wait where a key is attached."""
    plugged = machine.plug()
    assert [plugged.path] == [key.path for key in wait_for_key(0)]
