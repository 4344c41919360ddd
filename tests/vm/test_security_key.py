# SPDX-License-Identifier: Apache-2.0
"""Security keys on a real kernel: sudo, login and sshd, udev, and the units around the verifier.

alice has a phone and the blue key, bob the blue key alone. The key waits for a touch until a test
has it touched. The tests share one state and a daemon that runs: each looks at records and lines of
the system log since its own beginning.
"""

import json
import time
from collections.abc import Iterator

import pytest
from installed import totp
from phone import CODE_PROMPT as ANY_CODE_PROMPT
from ssh_client import ssh_login

from vm.console import Console
from vm.guest import Guest
from vm.key_owner import ATTACH_PROMPT, CODE_PROMPT, CUE, SHELL, KeyOwner
from vm.node_watch import other_devices, watched_nodes
from vm.product import PREFIX, SERVICE, SOCKETS, Product
from vm.root_tree import PASSWORDS
from vm.software_key import SoftwareKey, install_software_keys, software_key
from vm.terminal import CTRL_C, Terminal, await_true

ALICE, BOB, CAROL = "alice", "bob", "carol"
AGENT = "/run/agent-of-alice"
NODE = "/dev/hidraw0"  # of the only key there is
PIN, WRONG_PIN = "24681012", "11111111"
SOON = 5.0  # seconds: what is served at once takes less on the slowest machine
FINGERPRINT = ("--set", "built_in_uv=true")
U2F_ONLY = (
    *("--set", 'versions=["U2F_V2"]'),
    *("--set", "resident_keys=false", "--set", "client_pin=false"),
)


@pytest.fixture(scope="module")
def blue(guest: Guest, secret: str) -> Iterator[SoftwareKey]:
    """Make the blue key and enable it for alice and bob, in the usual state."""
    del secret
    install_software_keys(guest)
    product = Product(guest)
    product.restore()
    guest.run("printf 'auth required /opt/pam-mfa/lib/security/pam_mfa.so\n' >/etc/pam.d/mfa-alone")
    with software_key(guest, "blue") as key:
        key.plug()
        for user in (ALICE, BOB):
            product.command("enable", "fido", user, "--name", "blue-key")
        guest.run(["systemctl", "start", SERVICE])
        yield key


@pytest.fixture
def owner(guest: Guest, blue: SoftwareKey) -> Iterator[KeyOwner]:
    """Hand out the key, attached and untouched, and the shipped policy."""
    blue.tell("fault", "all", "off")
    blue.touch("wait")
    blue.plug()
    owner = KeyOwner(Product(guest), blue)
    yield owner
    owner.close()


@pytest.fixture(params=["daemon", "on demand"])
def served(request: pytest.FixtureRequest, owner: KeyOwner) -> Iterator[KeyOwner]:
    """Run a test with the daemon, and with no unit running."""
    if request.param == "daemon":
        yield owner
        return
    guest = owner.product.guest
    guest.run(["systemctl", "stop", SERVICE, *SOCKETS])
    yield owner
    guest.run(["systemctl", "start", *SOCKETS, SERVICE])


def test_sudo(served: KeyOwner) -> None:
    """Sudo, which asks for silence, says which key to touch; the touch lets in, on record."""
    with served.sudo() as terminal:
        terminal.expect(CUE)
        served.key.touch()
        assert (terminal.status(), terminal.last_line()) == (0, "root")
    (record,) = served.records()
    assert (record["service"], record["reason"]) == ("sudo", "touch_accepted")
    assert record["device"]["serial_number"] == "fido/alice/blue-key"
    assert record["sign_count"] > 0


def test_console(owner: KeyOwner, console: Console) -> None:
    """A login on tty1 by a touch; logind then gives the key's node to that user as well."""
    owner.begin_login(console, BOB)
    console.expect(CUE)
    owner.key.touch()
    console.expect(SHELL)
    assert [record["reason"] for record in owner.records()] == ["touch_accepted"]
    assert owner.may_open(NODE, BOB, ALICE, "pam-mfa") == [True, False, True]


def test_rule(owner: KeyOwner) -> None:
    """The udev rule gives the node to the verifier's group and to nobody else."""
    assert owner.product.guest.output(["stat", "-c", "%U %G %a", NODE]) == "root pam-mfa 660"
    assert owner.may_open(NODE, ALICE, "nobody", "pam-mfa") == [False, False, True]


def test_without_the_rule(owner: KeyOwner) -> None:
    """Without the rule, a login goes on to a code, and the system log says what to install."""
    guest = owner.product.guest
    owner.key.unplug()
    guest.run("mv /etc/udev/rules.d/71-pam-mfa.rules /root; udevadm control --reload")
    try:
        owner.key.plug()
        assert guest.output(["stat", "-c", "%U %G %a", NODE]) == "root root 600"
        with owner.sudo() as terminal:
            terminal.expect(ANY_CODE_PROMPT)
        assert await_true(lambda: "71-pam-mfa.rules" in owner.messages())
    finally:
        guest.run("mv /root/71-pam-mfa.rules /etc/udev/rules.d; udevadm control --reload")
        owner.key.unplug()


def test_other_devices(owner: KeyOwner, guest: Guest) -> None:
    """A mouse and a keyboard have nodes of the same kind, and are never opened."""
    with other_devices(guest) as others, watched_nodes(guest) as watch:
        assert len(others) == 2
        owner.product.command("keys")
        with owner.sudo() as terminal:
            terminal.expect(CUE)
            owner.key.touch()
            assert terminal.status() == 0
        assert watch.opened() == {"hidraw0"}


def test_remote_login(owner: KeyOwner, guest: Guest) -> None:
    """Who comes by ssh is asked for a code alone; the key in this machine hears nothing."""
    packets = owner.key.count("packets")
    password = ("[Pp]assword.*: $", PASSWORDS[ALICE])
    result = ssh_login(guest.ssh_port, ALICE, [password, (ANY_CODE_PROMPT, None)])
    assert "Touch" not in result.output
    assert result.prompts[-1].endswith("Verification code: ")
    assert owner.key.count("packets") == packets
    assert await_true(lambda: [one["service"] for one in owner.records()] == ["sshd"])


def test_absent(owner: KeyOwner) -> None:
    """Without the key, sudo asks for a code or the key: attached at the prompt, Enter uses it."""
    owner.key.unplug()
    with owner.sudo() as terminal:
        terminal.expect(ATTACH_PROMPT)
        owner.key.plug()
        terminal.send("\n")
        terminal.expect(CUE)
        owner.key.touch()
        assert (terminal.status(), terminal.last_line()) == (0, "root")


def test_hotplug(owner: KeyOwner, console: Console) -> None:
    """Who has a key alone is waited for: it blinks as soon as it is attached."""
    owner.key.unplug()
    owner.begin_login(console, BOB)
    console.expect(r"Attach your security key \(blue-key\) within 15 seconds\.")
    owner.key.plug()
    console.expect(CUE)
    owner.key.touch()
    console.expect(SHELL)


def test_pulled_out(owner: KeyOwner, guest: Guest) -> None:
    """A key that is pulled out leaves the code; back as another node, it is found again."""
    with owner.sudo() as terminal:
        terminal.expect(CUE)
        assert await_true(owner.key.is_blinking)
        with owner.held_open(NODE):
            owner.key.unplug()
            terminal.expect(r"Your security key \(blue-key\) was pulled out\.")
            terminal.expect(CODE_PROMPT)
            owner.key.plug()
            assert guest.output("ls /dev/hidraw*") == "/dev/hidraw1"
            terminal.send("\n")
            terminal.expect(CUE)
            owner.key.touch()
            assert (terminal.status(), terminal.last_line()) == (0, "root")
            owner.key.unplug()


def test_untouched(owner: KeyOwner, secret: str) -> None:
    """A key that nobody touches for as long as policy says goes dark, and a code does."""
    owner.set_policy("{touch: 2s}")
    with owner.sudo() as terminal:
        terminal.expect(CUE)
        terminal.expect(r"Your security key \(blue-key\) was not touched in time\.")
        terminal.expect(CODE_PROMPT)
        assert not owner.key.is_blinking()
        terminal.send(f"{totp(secret)}\n")
        assert (terminal.status(), terminal.last_line()) == (0, "root")
    assert [one["reason"] for one in owner.records()] == ["key_timed_out", "code_accepted"]


def test_interrupted_sudo(served: KeyOwner) -> None:
    """Ctrl-C ends sudo while a touch is waited for, and the key goes dark at once."""
    with served.sudo() as terminal:
        terminal.expect(CUE)
        assert await_true(served.key.is_blinking)
        terminal.send(CTRL_C)
        assert await_true(lambda: not served.key.is_blinking(), SOON)
        assert terminal.status() == 1
    assert [one["reason"] for one in served.records()] == ["abandoned"]


def test_interrupted_login(owner: KeyOwner, console: Console) -> None:
    """Ctrl-C on tty1 while a touch is waited for brings the login prompt again."""
    owner.begin_login(console, ALICE)
    console.expect(CUE)
    assert await_true(owner.key.is_blinking)
    console.send(CTRL_C)
    console.expect(r"login: $")
    assert await_true(lambda: not owner.key.is_blinking(), SOON)
    assert await_true(lambda: [one["reason"] for one in owner.records()] == ["abandoned"])


@pytest.mark.parametrize("transport", ["uhid", "gadget"])
def test_enabling(owner: KeyOwner, guest: Guest, transport: str) -> None:
    """Root enables an attached key by two touches, sees whose it is, and its user gets in by it."""
    owner.key.unplug()
    name = f"{transport}-key"
    with software_key(guest, name, transport) as key:
        key.plug()
        told = owner.product.command("enable", "fido", ALICE, "--name", name).stdout
        assert told.splitlines()[-1] == f"Enabled fido/alice/{name} for alice."
        assert key.count("touches") == 2
        (row,) = json.loads(owner.product.command("keys", "--json").stdout)
        assert (row["node"], row["users"], row["pin"]) == (NODE, f"alice: {name}", "unset")
        with owner.sudo() as terminal:
            terminal.expect(rf"Touch your security key \({name}\)\.")
            assert (terminal.status(), terminal.last_line()) == (0, "root")


def set_pin(guest: Guest) -> None:
    """Set a new key's PIN, by libfido2's tool."""
    with Terminal(guest, ["fido2-token", "-S", NODE]) as terminal:
        for prompt in (r"new PIN.*: $", r"again.*: $"):
            terminal.expect(prompt)
            terminal.send(f"{PIN}\n")
        assert terminal.status() == 0


def test_pin(owner: KeyOwner, guest: Guest) -> None:
    """Where policy requires a PIN it is asked for unseen; a wrong one says how many are left."""
    owner.key.unplug()
    owner.set_policy("{user_verification: required}")
    with software_key(guest, "pin-key") as key:
        key.plug()
        set_pin(guest)
        enable = [f"{PREFIX}/bin/pam-mfa", "enable", "fido", ALICE, "--name", "pin-key"]
        with Terminal(guest, enable) as terminal:
            terminal.expect(r"PIN of the security key .*: ?$")
            terminal.send(f"{PIN}\n")
            assert terminal.status() == 0
        key.touch("wait")
        with owner.sudo() as terminal:
            for pin in (WRONG_PIN, PIN):
                terminal.expect(r"PIN of your security key \(pin-key\): $")
                terminal.send(f"{pin}\n")
            assert "Wrong PIN of your security key (pin-key); 7 attempts left" in terminal.text
            terminal.expect(r"\r\nTouch your security key \(pin-key\)\.")
            assert await_true(key.is_blinking)
            key.touch()
            assert (terminal.status(), terminal.last_line()) == (0, "root")
            assert not {PIN, WRONG_PIN} & set(terminal.text.split())
    assert owner.records()[-1]["detail"] == "user verified by the key"


def test_fingerprint(owner: KeyOwner, guest: Guest) -> None:
    """A key with a fingerprint reader verifies by the touch; a wrong finger leaves a code."""
    owner.key.unplug()
    owner.set_policy("{user_verification: required}")
    with software_key(guest, "finger-key", "uhid", *FINGERPRINT) as key:
        key.plug()
        owner.product.command("enable", "fido", ALICE, "--name", "finger-key")
        key.tell("finger", "fail")
        with owner.sudo() as terminal:
            terminal.expect(r"Touch your security key \(finger-key\)\.")
            terminal.expect(r"Your security key \(finger-key\) did not recognize you\.")
            terminal.expect(CODE_PROMPT)
            key.tell("finger", "ok")
            terminal.send("\n")
            terminal.expect(r"Touch your security key \(finger-key\)\.")
            assert (terminal.status(), terminal.last_line()) == (0, "root")


def test_u2f(owner: KeyOwner, guest: Guest) -> None:
    """A key that knows U2F alone is enabled and lets in."""
    owner.key.unplug()
    with software_key(guest, "u2f-key", "uhid", *U2F_ONLY) as key:
        key.plug()
        owner.product.command("enable", "fido", ALICE, "--name", "u2f-key")
        with owner.sudo() as terminal:
            terminal.expect(r"Touch your security key \(u2f-key\)\.")
            assert (terminal.status(), terminal.last_line()) == (0, "root")


@pytest.mark.parametrize("fault", ["hang", "garbage", "endless-keepalives", "deep-cbor"])
def test_bad_key(owner: KeyOwner, guest: Guest, fault: str) -> None:
    """A bad key leaves its owner the code, and meanwhile somebody else is served at once."""
    owner.key.tell("fault", fault, "on")
    with owner.sudo() as terminal:
        began = time.monotonic()
        with Terminal(guest, ["pamtester", "mfa-alone", CAROL, "authenticate"]) as other:
            other.expect(CODE_PROMPT)
            assert time.monotonic() - began < SOON
        terminal.expect(ANY_CODE_PROMPT)
        assert "security key" in terminal.text.lower()
    assert ("sudo", "key_unusable") in [(one["service"], one["reason"]) for one in owner.records()]


def test_login_before_another_program(owner: KeyOwner, guest: Guest) -> None:
    """While a login waits for a touch, fido2-token waits for the key, and gets it then."""
    with owner.sudo() as terminal:
        terminal.expect(CUE)
        assert await_true(owner.key.is_blinking)
        with Terminal(guest, ["fido2-token", "-I", NODE]) as token:
            assert await_true(lambda: guest.run("pgrep -x fido2-token", check=False).stdout != "")
            owner.key.touch()
            assert (terminal.status(), terminal.last_line()) == (0, "root")
            assert token.status() == 0
            assert "FIDO_2_1" in token.text


def test_another_program_before_a_login(owner: KeyOwner, guest: Guest) -> None:
    """While ssh-keygen has the key, a login says so and asks for a code; later Enter uses it."""
    keygen = "rm -f /root/sk*; exec ssh-keygen -q -t ecdsa-sk -N '' -f /root/sk"
    with Terminal(guest, ["sh", "-c", keygen]) as other:
        assert await_true(owner.key.is_blinking)
        with owner.sudo() as terminal:
            terminal.expect(r"(?i)another program")
            terminal.expect(ANY_CODE_PROMPT)
            owner.key.touch()
            assert other.status() == 0
            terminal.send("\n")
            terminal.expect(CUE)
            owner.key.touch()
            assert (terminal.status(), terminal.last_line()) == (0, "root")
    assert guest.output("cat /root/sk.pub").startswith("sk-ecdsa-sha2-nistp256@openssh.com ")


@pytest.fixture
def agent(owner: KeyOwner, guest: Guest) -> Iterator[str]:
    """Alice's ssh-agent with an SSH key that ssh-keygen makes on the key; gives its socket."""
    guest.run(f"rm -rf {AGENT}; install -d -o {ALICE} -m 700 {AGENT}")
    keygen = ["ssh-keygen", "-q", "-t", "ecdsa-sk", "-N", "", "-f", f"{AGENT}/sk"]
    with Terminal(guest, keygen) as making:
        assert await_true(owner.key.is_blinking)
        owner.key.touch()
        assert making.status() == 0
    guest.run(f"chown {ALICE}: {AGENT}/sk*")
    public_key = ("--public-key", f"{AGENT}/sk.pub", "--name", "laptop")
    owner.product.command("enable", "ssh-key", ALICE, *public_key, "--vouch")
    # Whose agent it is may open the node, as who sits at the laptop may.
    as_alice = f"setpriv --reuid={ALICE} --regid={ALICE} --groups=pam-mfa"
    start = f"setsid {as_alice} ssh-agent -D -a {AGENT}/s <&- >&- 2>&- & echo $!"
    process = guest.output(start)
    guest.run(f"until [ -S {AGENT}/s ]; do sleep 0.05; done")
    guest.run(f"SSH_AUTH_SOCK={AGENT}/s {as_alice} ssh-add -q {AGENT}/sk")
    yield f"{AGENT}/s"
    guest.run(["kill", process])
    owner.product.command("deactivate", ALICE, f"ssh-key/{ALICE}/laptop")


def test_ssh_agent(owner: KeyOwner, agent: str) -> None:
    """An SSH key that ssh-keygen made on the key approves sudo by the agent and one touch."""
    with owner.sudo(f"SSH_AUTH_SOCK={agent}") as terminal:
        terminal.expect(r"Touch the security key on your own computer to approve sudo on \S+")
        assert await_true(owner.key.is_blinking)
        owner.key.touch()
        assert (terminal.status(), terminal.last_line()) == (0, "root")
    (record,) = owner.records()
    assert (record["reason"], record["device"]["type"]) == ("agent_signature_accepted", "ssh-key")
    assert record["sign_count"] > 0


def test_ssh_agent_without_its_key(owner: KeyOwner, agent: str) -> None:
    """A key that is pulled out of the laptop makes the agent refuse, which is said; a code does."""
    owner.key.unplug()
    with owner.sudo(f"SSH_AUTH_SOCK={agent}") as terminal:
        terminal.expect(r"Your ssh-agent refused to sign with laptop")
        terminal.expect(ANY_CODE_PROMPT)
    owner.key.plug()
