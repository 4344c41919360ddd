# SPDX-License-Identifier: Apache-2.0
"""SSH keys that the real ssh-keygen makes on a security key at a port: proof and attestation."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from security_key.key import SecurityKey
from security_key.model import U2F_ONLY, AttestationKind, Model
from usb_machine import Machine

from pam_mfa.lifecycle import Actor, Evidence, KeyRefusedError, Lifecycle, SshKeyWish
from pam_mfa.policy import Fido
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout

pytest_plugins = ["machine_fixtures"]

MODEL = "5ec0de00-c0de-4a11-900d-feedfacebeef"  # of the software key
CHALLENGES = (bytes(range(32)), b"any bytes of an administrator's\n")
ED25519, ECDSA = Model(algorithms=(-8,)), Model(algorithms=(-7,))


@pytest.fixture
def lifecycle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lifecycle]:
    """A host where nobody is enrolled."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    layout = Layout(tmp_path / "root")
    for directory in (layout.devices, layout.audit_log.parent):
        directory.mkdir(parents=True)
    layout.library.chmod(0o700)
    store = EmbeddedStore(layout)
    yield Lifecycle(store, time.time, Actor(0, 1, None))
    store.close()


def keygen(*words: str, message: str = "") -> str:
    """Run ssh-keygen, which finds the key by libfido2, without a terminal.

    Its environment is this process's as C has it: umockdev has put the machine there.
    """
    done = subprocess.run(
        ["setsid", "ssh-keygen", *words],
        input=message,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def make_key(place: Path, kind: str, challenge: bytes) -> Evidence:
    """Make an SSH key at ``place/key``, and return what its maker says of it."""
    (place / "challenge").write_bytes(challenge)
    options = (f"challenge={place / 'challenge'}", f"write-attestation={place / 'attestation'}")
    words = [word for option in options for word in ("-O", option)]
    keygen("-q", "-t", kind, "-N", "", "-f", str(place / "key"), *words)
    return Evidence((place / "attestation").read_bytes(), challenge)


def policy_of(place: Path, key: SecurityKey) -> Fido:
    """Return a policy that asks for this model, by its maker's root."""
    roots = place / "roots.der"
    roots.write_bytes(key.memory.attestation.root)
    roots.chmod(0o644)
    return Fido(aaguids=(MODEL,), roots=str(roots))


@pytest.mark.parametrize("challenge", CHALLENGES, ids=["32 bytes", "others"])
@pytest.mark.parametrize("model", [ED25519, ECDSA, U2F_ONLY], ids=["ed25519", "ecdsa", "U2F"])
def test_attested_and_proven(
    machine: Machine, lifecycle: Lifecycle, tmp_path: Path, model: Model, challenge: bytes
) -> None:
    """A key that ssh-keygen made is enabled by its attestation file and one signature."""
    key = SecurityKey(model)
    machine.plug(key=key)
    kind = "ed25519-sk" if model is ED25519 else "ecdsa-sk"
    evidence = make_key(tmp_path, kind, challenge)
    wish = SshKeyWish("laptop", policy_of(tmp_path, key), evidence)
    pending = lifecycle.begin_ssh_key("alice", (tmp_path / "key.pub").read_text(), wish)
    words = ("-Y", "sign", "-n", pending.namespace, "-f", str(tmp_path / "key"))
    signature = keygen(*words, message=f"{pending.challenge}\n")
    assert "laptop" == lifecycle.enable_proven_ssh_key(pending, signature).name


def test_attested_by_itself(machine: Machine, lifecycle: Lifecycle, tmp_path: Path) -> None:
    """A key that attests itself is enabled only where policy asks for no model."""
    key = SecurityKey(Model(attestation=AttestationKind.SELF))
    machine.plug(key=key)
    evidence = make_key(tmp_path, "ecdsa-sk", CHALLENGES[0])
    public_key = (tmp_path / "key.pub").read_text()
    assert (
        "packed, by itself"
        in lifecycle.begin_ssh_key("alice", public_key, SshKeyWish(evidence=evidence)).attestation
    )
    with pytest.raises(KeyRefusedError, match="does not prove which model"):
        lifecycle.begin_ssh_key(
            "alice", public_key, SshKeyWish("", policy_of(tmp_path, key), evidence)
        )
