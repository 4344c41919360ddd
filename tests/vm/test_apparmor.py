# SPDX-License-Identifier: Apache-2.0
"""The shipped AppArmor profile, enforced: every way to log in works, and nothing is denied."""

import re
from collections.abc import Iterator

import pytest
from installed import REPOSITORY, totp
from phone import CODE_PROMPT
from ssh_client import ssh_login

from vm.guest import Guest
from vm.key_owner import CUE, KeyOwner
from vm.product import PREFIX, SERVICE, SOCKETS, Product
from vm.root_tree import PASSWORDS
from vm.software_key import install_software_keys, software_key
from vm.terminal import Terminal

ALICE = "alice"
NAME = "pam-mfad"
SHIPPED = REPOSITORY / "packaging/apparmor/usr.lib.pam-mfa.pam-mfad"
PLACE = "/etc/apparmor.d/pam-mfad"
PASSWORD = ("[Pp]assword.*: $", PASSWORDS[ALICE])


@pytest.fixture(scope="module")
def confined(guest: Guest, secret: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Enforce the profile, for this guest's prefix, while the tests of this file run."""
    del secret
    profile = tmp_path_factory.mktemp("apparmor") / "profile"
    text = SHIPPED.read_text().replace("/usr/lib/pam-mfa/", f"{PREFIX}/")
    profile.write_text(text.replace("flags=(complain,", "flags=("))
    guest.put(profile, PLACE)
    guest.run(["systemctl", "stop", SERVICE, *SOCKETS])
    guest.run(["apparmor_parser", "--replace", "--skip-cache", PLACE])
    yield
    guest.run(["systemctl", "stop", SERVICE, *SOCKETS])
    guest.run(["apparmor_parser", "--remove", PLACE])
    guest.run(["rm", PLACE])


@pytest.fixture(params=["daemon", "on demand"])
def owner(request: pytest.FixtureRequest, confined: None, product: Product) -> Iterator[KeyOwner]:
    """Hand out alice's key, with the daemon confined, and with each login's own verifier."""
    del confined
    guest = product.guest
    install_software_keys(guest)
    with software_key(guest, "grey") as key:
        key.plug()
        product.command("enable", "fido", ALICE, "--name", "blue-key")
        if request.param == "on demand":
            guest.run(["systemctl", "stop", SERVICE, *SOCKETS])
        key.touch("wait")
        owner = KeyOwner(product, key)
        yield owner
        owner.close()


def denials(owner: KeyOwner) -> list[str]:
    """Return what the kernel has denied to the profile since the beginning."""
    lines = owner.kernel_messages().splitlines()
    return [line for line in lines if re.search(rf'apparmor="DENIED".*profile="{NAME}"', line)]


def test_logins(owner: KeyOwner, secret: str) -> None:
    """Codes over ssh and touches at sudo are judged by verifiers under the profile."""
    guest = owner.product.guest
    labels: list[str] = []

    def look_and_answer(_shown: str) -> str:
        pids = guest.output("pgrep -x pam-mfad").split()
        labels.extend(guest.output(f"cat /proc/{pid}/attr/apparmor/current") for pid in pids)
        return totp(secret)

    by_code = ssh_login(guest.ssh_port, ALICE, [PASSWORD, (CODE_PROMPT, look_and_answer)])
    assert (by_code.status, by_code.last_line) == (0, ALICE)
    assert {f"{NAME} (enforce)"} == set(labels)
    with owner.sudo() as terminal:
        terminal.expect(CUE)
        owner.key.touch()
        assert (terminal.status(), terminal.last_line()) == (0, "root")
    owner.key.unplug()
    reasons = [record["reason"] for record in owner.records()]
    assert reasons == ["code_accepted", "touch_accepted"]
    assert denials(owner) == []


def test_commands(owner: KeyOwner) -> None:
    """The command line, a switched service and a new policy work beside the profile."""
    product = owner.product
    product.guest.run(["cp", "-a", "/etc/pam.d/su", "/root/su.before"])
    try:
        product.command("switch", "on", "su", "--yes", "--force", "--confirm-within", "1h")
        owner.set_policy("{touch: 5s}")
        with Terminal(product.guest, ["runuser", "-u", ALICE, "--", "su", "-c", "id", ALICE]) as su:
            su.expect(r"assword.*: $")
            su.send(f"{PASSWORDS[ALICE]}\n")
            su.expect(CUE)
            owner.key.touch()
            assert su.status() == 0
    finally:
        product.command("switch", "off", "su", check=False)
        product.guest.run(["cp", "-a", "/root/su.before", "/etc/pam.d/su"])
    for words in (["list", ALICE], ["status", ALICE], ["keys"], ["audit", "verify"]):
        product.command(*words)
    assert denials(owner) == []


def test_it_denies(confined: None, guest: Guest) -> None:
    """The profile is no empty shell: passwords, homes and shells are out of its reach."""
    del confined
    for code in (
        "open('/etc/shadow')",
        "open('/home/alice/.hushlogin')",
        "open('/etc/pam_mfa/policy.yaml', 'a')",
        "import os; os.execv('/bin/sh', ['sh', '-c', 'true'])",
    ):
        command = ["aa-exec", "-p", NAME, "--", "/usr/bin/python3", "-c", code]
        done = guest.run(command, check=False)
        assert (done.returncode, "PermissionError" in done.stderr) == (1, True), (code, done.stderr)
