# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa switch`` of an installation from source, whose unit at boot is enabled by hand."""

from collections.abc import Iterator

import pytest

from vm.guest import Guest
from vm.product import PREFIX, Product

FILE = "/etc/pam.d/su"
UNIT = "pam-mfa-switch.service"


@pytest.fixture
def before(product: Product) -> Iterator[str]:
    """Give su's file as it was; whatever happens, it is so again."""
    guest = product.guest
    guest.run(["cp", "-a", FILE, "/root/su.before"])
    yield guest.output(["sha256sum", FILE])
    product.command("switch", "off", "su", check=False)
    guest.run(["cp", "-a", "/root/su.before", FILE])


def switch_on(product: Product, within: str) -> None:
    """Switch su on, whoever could be locked out."""
    product.command("switch", "on", "su", "--yes", "--force", "--confirm-within", within)
    assert "pam_mfa.so" in product.guest.output(["cat", FILE])


def test_boot(product: Product, before: str, guest: Guest) -> None:
    """A machine that is switched off before anybody has confirmed boots with the old file."""
    guest.run(["cp", f"{PREFIX}/share/systemd/{UNIT}", "/etc/systemd/system/"])
    guest.run(f"systemctl daemon-reload; systemctl enable --quiet {UNIT}")
    switch_on(product, "1h")
    guest.reboot()
    assert before == guest.output(["sha256sum", FILE])
    assert guest.run("test -e /etc/pam_mfa/switch.json", check=False).returncode == 1
    guest.run(["systemctl", "disable", "--quiet", UNIT])
