# SPDX-License-Identifier: Apache-2.0
"""Which nodes are keys: found through udev and sysfs, without opening anything."""

import pytest
from security_key.key import SecurityKey
from usb_machine import KEY_DESCRIPTOR, KEYBOARD, KEYBOARD_DESCRIPTOR, Machine, Product

from pam_mfa.hardware import nodes
from pam_mfa.hardware.hotplug import Monitor, wait_for_key
from pam_mfa.hardware.nodes import list_keys
from pam_mfa.hardware.security_key import open_key

pytest_plugins = ["machine_fixtures"]


def paths() -> list[str]:
    """Return the paths of the listed keys."""
    return [key.path for key in list_keys()]


def test_nothing_attached(machine: Machine) -> None:
    """A machine without HID devices has no keys."""
    assert [] == machine.opened
    assert () == list_keys()


def test_key_among_others(machine: Machine) -> None:
    """Of all hidraw nodes the key alone is listed, with what it says of itself."""
    machine.plug(KEYBOARD)
    plugged = machine.plug(Product("Acme Blue Key", vendor_id=0x1209, product_id=0x0F1D))
    machine.plug(Product("Acme Mouse", KEYBOARD_DESCRIPTOR, tag=None))
    (key,) = list_keys()
    assert (plugged.path, "hidraw1", "Acme Blue Key") == (key.path, key.sysname, key.name)
    assert (0x1209, 0x0F1D, (64, 64)) == (key.vendor_id, key.product_id, key.reports)
    assert "usb-0000:00:14.0-1/input0" == key.location
    assert plugged.place.stat().st_rdev == key.device_number


def test_unrelated_node_is_never_opened(machine: Machine) -> None:
    """Listing, waiting and monitoring open no node at all; opening a key opens that node only."""
    machine.plug(KEYBOARD)
    plugged = machine.plug(key=SecurityKey())
    machine.plug(Product("hidden", tag="0"))
    with Monitor() as monitor:
        (key,) = monitor.keys
        monitor.receive()
        wait_for_key(0)
        assert [] == machine.opened
    with open_key(key):
        pass
    assert [plugged.path] == machine.opened


def test_hidden_by_a_rule(machine: Machine) -> None:
    """A key whose tag a rule of the administrator's took away is not listed."""
    machine.plug(Product(tag="0"))
    machine.plug(Product(tag=""))
    assert [] == paths()


def test_looked_at_and_not_tagged(machine: Machine) -> None:
    """A node that udev looked at and did not tag is not listed, whatever its descriptor says."""
    machine.plug(Product(tag=None))
    assert [] == paths()


def test_tagged_without_being_a_key(machine: Machine) -> None:
    """A tag alone makes no key of a keyboard."""
    machine.plug(KEYBOARD._replace(tag="1"))
    assert [] == paths()


def test_without_udev(machine: Machine) -> None:
    """Where no udevd runs, as in containers, the report descriptor tells the key."""
    machine.plug(KEYBOARD._replace(has_udev_data=False))
    plugged = machine.plug(Product(has_udev_data=False))
    assert [plugged.path] == paths()


def test_before_udev_is_done(machine: Machine) -> None:
    """While udevd has not yet finished with a key, it is not listed: it may not be opened yet."""
    machine.start_udevd()
    machine.plug(Product(has_udev_data=False))
    assert [] == paths()


def test_without_libudev(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without libudev the report descriptor decides, unless udevd runs and cannot be asked."""

    def fail() -> None:
        raise ImportError

    monkeypatch.setattr(nodes, "_load_libudev", fail)
    plugged = machine.plug()
    assert [plugged.path] == paths()
    machine.start_udevd()
    assert [] == paths()


def test_order_is_that_of_numbers(machine: Machine) -> None:
    """hidraw2 comes before hidraw10."""
    expected = [machine.plug().path for _ in range(11)]
    assert expected == paths()


def test_name_cannot_draw_on_the_terminal(machine: Machine) -> None:
    """What a device calls itself loses its control characters, and its length is bounded."""
    machine.plug(Product("Blue\x1b[2J Key\u202e " + "x" * 200, KEY_DESCRIPTOR))
    (key,) = list_keys()
    assert ("Blue[2J Key " + "x" * 200)[:64] == key.name


def test_broken_descriptor(machine: Machine) -> None:
    """A device with a malformed descriptor is no key, and keeps none from being found."""
    machine.plug(Product(descriptor=KEY_DESCRIPTOR[:-1]))
    plugged = machine.plug()
    assert [plugged.path] == paths()
