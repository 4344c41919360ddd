# SPDX-License-Identifier: Apache-2.0
"""Rotation of the seal keys: what is sealed, whoever holds it, and runs that are killed."""

import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result
from doubles import STEP, Clock, code_of, make_layout
from killed_switch import run_killed

from pam_mfa.cli.__main__ import commands
from pam_mfa.cli.session import Session
from pam_mfa.doctor import seals
from pam_mfa.doctor.examination import examine
from pam_mfa.doctor.finding import Level
from pam_mfa.doctor.view import View
from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.lifecycle import Actor, Lifecycle
from pam_mfa.oath import Parameters
from pam_mfa.seal_rotation import SealRotation
from pam_mfa.secret import Secret
from pam_mfa.store import Enrollment, Standing
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.key_ring import format_ring, parse_ring, ring_of
from pam_mfa.store.layout import Layout
from pam_mfa.store.resealing import Census, Resealing
from pam_mfa.store.seal import CREDENTIAL
from pam_mfa.store.signing import load_signing_key
from pam_mfa.token_stock import TokenStock
from pam_mfa.tokens import Delivery, Token
from pam_mfa.verification.memory import hash_device

ACTOR = Actor(uid=0, pid=4321, login_uid=1000)
USERS = ("alice", "bob", "carol")


class Host(NamedTuple):
    """A store on a disk, and what may be done to it."""

    layout: Layout
    store: EmbeddedStore
    lifecycle: Lifecycle
    rotation: SealRotation

    def enable(self, user: str, *, name: str = "phone") -> None:
        """Enable a phone for a user."""
        seed = seed_of(f"{user} {name}")
        pending = self.lifecycle.begin_virtual(user, name, seed=seed)
        self.lifecycle.enable(pending, code_of(seed, STEP - 1), code_of(seed, STEP))

    def texts(self) -> str:
        """Return all that holds sealed texts, but for the tokens."""
        files = [*sorted(self.layout.devices.glob("*.yaml")), self.layout.signing_key]
        return "".join(path.read_text("ascii") for path in files if path.exists())

    def details(self) -> list[str]:
        """Return what the records tell of rotations."""
        lines = self.layout.audit_log.read_text("ascii").splitlines()
        records = map(json.loads, lines)
        return [one["detail"] for one in records if one["event_name"] == "RotateSealKey"]


def open_host(layout: Layout) -> Host:
    """Open a store as a process of its own does."""
    store, clock = EmbeddedStore(layout), Clock()
    return Host(
        layout, store, Lifecycle(store, clock, ACTOR), SealRotation(store, layout, clock, ACTOR)
    )


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host with a phone each for three users, a token in stock, one given out, and a log key."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    host = open_host(make_layout(tmp_path))
    for user in USERS:
        host.enable(user)
    tokens = [Token(f"A-{n}", "Acme", Parameters(), 0, seed_of(f"A-{n}"), n + 2) for n in (1, 2)]
    clock = Clock()
    TokenStock(host.store, clock, ACTOR).take_in(Delivery("f", tuple(tokens), ()), "f")
    seed = seed_of("A-1")
    pending = host.lifecycle.begin_token("bob", "A-1")
    host.lifecycle.enable(pending, code_of(seed, STEP - 1), code_of(seed, STEP))
    host.store.follow_up(must_sign=True)
    assert host.layout.signing_key.exists()
    yield host
    host.store.close()


def seed_of(name: str) -> Secret:
    """Return a seed of its own for each name."""
    return Secret(f"the seed of {name}".encode().ljust(20, b"."))


def seeds(enrollment: Enrollment) -> list[Secret]:
    """Return the seeds of a user's devices."""
    return [one.seed for one in enrollment.devices]


def require_whole(layout: Layout) -> None:
    """See that a new process opens everything that there is."""
    other = open_host(layout)
    try:
        found = {user: other.store.read_enrollment(user) for user in USERS}
        assert dict.fromkeys(USERS, (Standing.ENROLLED, "")) == {
            user: (one.standing, one.problem) for user, one in found.items()
        }
        assert [seed_of("alice phone")] == seeds(found["alice"])
        assert [seed_of("bob phone"), seed_of("A-1")] == seeds(found["bob"])
        assert seed_of("A-2") == other.lifecycle.begin_token("dave", "A-2").seed
        load_signing_key(layout, other.store.sealer)
    finally:
        other.store.close()


def test_all_at_once(host: Host) -> None:
    """One run makes a key, seals everything by it, and nothing needs the old one any more."""
    before = host.rotation.ring
    rotated = host.rotation.rotate()
    assert (7, before.names, 1) == (rotated.sealed_anew, rotated.retired, len(rotated.ring.keys))
    assert 5 == host.texts().count(f"sealed:v2:{rotated.ring.used}:")
    assert "sealed:v1:" not in host.texts()
    ring = parse_ring(host.layout.seal_key.read_bytes(), "r")
    assert (rotated.ring, "") == (ring, ring.first)
    require_whole(host.layout)


def test_old_key_is_nowhere(host: Host) -> None:
    """After a rotation no file of the store has the old key's bytes."""
    old = host.rotation.ring.keys[0].secret.reveal()
    host.rotation.rotate()
    host.store.close()
    files = [path for path in host.layout.root.rglob("*") if path.is_file()]
    held = b"".join(path.read_bytes() for path in files)
    assert (False, False) == (old in held, old.hex().encode() in held)


def test_again_and_again(host: Host) -> None:
    """Rotations follow each other; the names of their keys are in the records, no key is."""
    for _ in range(3):
        host.rotation.rotate()
    require_whole(host.layout)
    details = host.details()
    assert (6, True) == (len(details), host.rotation.ring.used in details[-2])
    key = host.rotation.ring.keys[0].secret.reveal().hex()
    assert key[:16] not in host.layout.audit_log.read_text("ascii")


def test_recovery_codes_outlive_it(host: Host) -> None:
    """Codes on paper and the uniqueness of seeds are as before."""
    host.lifecycle.enable_recovery("alice")
    (paper,) = host.store.read_enrollment("alice").paper
    before = host.store.code_hash("123", "alice", paper.serial_number)
    host.rotation.rotate()
    assert (paper,) == host.store.read_enrollment("alice").paper
    assert before == host.store.code_hash("123", "alice", paper.serial_number)
    with pytest.raises(RefusedError, match="another device's already"):
        host.lifecycle.enable(
            host.lifecycle.begin_virtual("dave", seed=seed_of("alice phone")),
            code_of(seed_of("alice phone"), STEP - 1), code_of(seed_of("alice phone"), STEP),
        )  # fmt: skip


def test_step_by_step(host: Host) -> None:
    """A staged key seals nothing; a used one everything; the old one stays until the end."""
    host.rotation.stage()
    assert (0, 1) == (host.texts().count("sealed:v2:"), len(host.rotation.ring.staged))
    rotated = host.rotation.use()
    assert (7, 1, ()) == (rotated.sealed_anew, len(rotated.ring.old), rotated.retired)
    assert 1 == len(host.rotation.finish().keys)
    assert 0 == host.rotation.use().sealed_anew
    require_whole(host.layout)


def test_running_process_notices(host: Host) -> None:
    """Another process that was there before reads by the new keys without a restart."""
    other = open_host(host.layout)
    other.store.read_enrollment("alice")
    host.rotation.rotate()
    assert [seed_of("alice phone")] == seeds(other.store.read_enrollment("alice"))
    other.enable("dave")
    other.store.close()
    assert "sealed:v1:" not in host.texts()


def test_device_at_the_prompt(host: Host) -> None:
    """A device that is sealed anew while its user is at the prompt is still the user's."""
    enrollment = host.store.read_enrollment("alice")
    device = enrollment.devices[0].device
    host.rotation.stage()
    host.rotation.use()
    assert host.store.has_device("alice", device, enrollment.version)
    host.rotation.finish()
    assert host.store.has_device("alice", device, enrollment.version)


def test_device_of_another_seed_at_the_prompt(host: Host) -> None:
    """A device whose seed was replaced meanwhile is not the user's, though all else is alike."""
    enrollment = host.store.read_enrollment("alice")
    device = enrollment.devices[0].device
    sealed = host.store.sealer.seal(seed_of("bob phone"), "alice", device.serial_number)
    host.store.documents.write("alice", (device._replace(sealed_seed=sealed),))
    assert not host.store.has_device("alice", device, enrollment.version)


def test_enabling_meanwhile(host: Host) -> None:
    """A device whose codes are typed while the keys are rotated is sealed by the new one."""
    other = open_host(host.layout)
    seed = seed_of("dave phone")
    pending = other.lifecycle.begin_virtual("dave", seed=seed)
    host.rotation.rotate()
    other.lifecycle.enable(pending, code_of(seed, STEP - 1), code_of(seed, STEP))
    other.store.close()
    assert [seed] == seeds(host.store.read_enrollment("dave"))


def test_killed_at_each_write(host: Host, tmp_path: Path) -> None:
    """Killed before any of its writes, a rotation keeps nobody out, and the next run ends it."""
    host.store.close()
    kept, number, kills = tmp_path / "kept", 0, 0
    shutil.copytree(host.layout.root / "var", kept)
    while True:
        number += 1
        shutil.rmtree(host.layout.root / "var")
        shutil.copytree(kept, host.layout.root / "var")
        if not run_killed(functools.partial(rotate, host.layout), number):
            break
        kills += 1
        require_whole(host.layout)
        again = open_host(host.layout)
        ring = again.rotation.rotate().ring
        assert (1, 0) == (len(ring.keys), again.texts().count("sealed:v1:"))
        again.store.close()
        require_whole(host.layout)
        assert [] == [*host.layout.library.rglob("*.new")]
    assert kills > 20


def rotate(layout: Layout) -> None:
    """Rotate as a process of its own does."""
    open_host(layout).rotation.rotate()


def test_staged_key_is_not_used_by_chance(host: Host) -> None:
    """A key that is staged for other hosts is not used by a run that would retire the old one."""
    host.rotation.stage()
    with pytest.raises(RefusedError, match="is staged"):
        host.rotation.rotate()
    assert 1 == len(host.rotation.unstage().keys)
    host.rotation.rotate()


def test_finish_keeps_what_is_needed(host: Host) -> None:
    """A key by which something is sealed is not retired; whose, is named."""
    kept = host.store.documents.path("alice").read_bytes()
    host.rotation.stage()
    host.rotation.use()
    path = host.store.documents.path("alice")
    path.write_bytes(kept)  # as from a backup
    with pytest.raises(RefusedError, match="is needed: alice virtual/alice/phone"):
        host.rotation.finish()
    host.rotation.use()
    assert 1 == len(host.rotation.finish().keys)


@pytest.mark.parametrize("content", [b"", b"version: 2\n"])
def test_file_that_cannot_be_read(host: Host, content: bytes) -> None:
    """A damaged device file stops the old key from being retired, and not the others' sealing."""
    host.store.documents.path("alice").write_bytes(content)
    with pytest.raises(RefusedError, match=r"1 could not be sealed anew.*alice\.yaml"):
        host.rotation.rotate()
    with pytest.raises(RefusedError, match="cannot be told"):
        host.rotation.finish()
    assert (1, 4) == (len(host.rotation.ring.old), host.texts().count("sealed:v2:"))
    host.store.documents.write("alice", ())
    assert 1 == len(host.rotation.rotate().ring.keys)


def test_ring_of_another_host(host: Host) -> None:
    """Another host's new key comes here staged, with nothing else changed."""
    before = host.rotation.ring
    host.rotation.stage()
    exported = parse_ring(format_ring(host.rotation.ring), "r")
    host.rotation.unstage()
    assert (before, exported) == (host.rotation.ring, host.rotation.stage(exported))


def test_ring_of_another_fleet(host: Host) -> None:
    """A wrong ring is refused and changes nothing."""
    before = host.layout.seal_key.read_bytes()
    with pytest.raises(RefusedError, match="another fleet"):
        host.rotation.stage(ring_of(Secret(bytes(32))))
    assert (before, []) == (host.layout.seal_key.read_bytes(), host.details())


def test_new_host_takes_a_ring(host: Host, tmp_path: Path) -> None:
    """A host without devices takes the fleet's ring whole; its log's key goes on."""
    new = open_host(make_layout(tmp_path / "new"))
    new.lifecycle.unlock("alice")
    new.store.follow_up(must_sign=True)
    public = new.layout.public_key.read_bytes()
    host.rotation.rotate()
    assert host.rotation.ring == new.rotation.stage(host.rotation.ring)
    again = open_host(new.layout)
    again.lifecycle.unlock("alice")
    again.store.follow_up(must_sign=True)
    assert public == new.layout.public_key.read_bytes()
    assert host.rotation.ring.names == again.rotation.stage(host.rotation.ring).names
    new.store.close()
    again.store.close()


def test_credential(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that systemd hands over are not changed here: the next ring is told instead."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    path = directory / CREDENTIAL
    path.write_bytes(host.layout.seal_key.read_bytes())
    path.chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    given = open_host(host.layout)
    with pytest.raises(RefusedError, match="not ours to write") as caught:
        given.rotation.rotate()
    assert "systemd-creds encrypt --name=pam-mfa.seal" in caught.value.hint
    for step in ("stage", "use"):
        data = given.rotation.foretell(step)
        path.unlink()
        path.write_bytes(data)
        path.chmod(0o400)
    assert 1 == len(given.rotation.ring.old)
    with pytest.raises(RefusedError, match="is needed"):
        given.rotation.foretell("finish")
    assert 7 == given.rotation.use().sealed_anew
    assert 1 == len(parse_ring(given.rotation.foretell("finish"), "r").keys)
    given.store.close()


def test_wrong_ring_in_its_place(host: Host) -> None:
    """A file that is no ring refuses, in a running process too, and says where and what."""
    host.layout.seal_key.unlink()
    host.layout.seal_key.write_bytes(b"pam-mfa seal ring 1\nkey x\n")
    host.layout.seal_key.chmod(0o600)
    with pytest.raises(BrokenSystemError, match="line 2: this is no line of a ring"):
        host.store.read_enrollment("alice")


def test_ring_of_others_in_its_place(host: Host) -> None:
    """With another ring whose keys sealed nothing here, the problem names the device."""
    host.rotation.rotate()
    host.layout.seal_key.write_bytes(bytes(32))
    enrollment = host.store.read_enrollment("alice")
    assert (Standing.UNREADABLE, True) == (
        enrollment.standing, "not in this host's ring" in enrollment.problem,
    )  # fmt: skip


def test_status(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """``seal status`` shows each key's standing and how much is sealed by it, and no key."""
    monkeypatch.setattr(Session, "seal_rotation", host.rotation)
    old = host.rotation.ring.used
    host.rotation.stage()
    host.rotation.use()
    host.rotation.stage()
    shown = invoke("seal", "status", "--json").output
    rows = [[*row.values()][:5] for row in json.loads(shown)]
    ring = host.rotation.ring
    assert [[old, "old", 0, 0, 0], [ring.used, "seals", 4, 2, 1],
            [ring.staged[0], "staged", 0, 0, 0]] == rows  # fmt: skip
    assert ring.keys[0].secret.reveal().hex() not in invoke("seal", "status").output


def test_status_of_strangers(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sealed by a key that is not here is shown with its holders."""
    monkeypatch.setattr(Session, "seal_rotation", host.rotation)
    lose_key(host)
    (row,) = (one for one in json.loads(invoke("seal", "status", "--json").output)
              if one["standing"] == "not in the ring")  # fmt: skip
    assert (1, "alice virtual/alice/phone") == (row["devices"], row["holders"])


def lose_key(host: Host) -> str:
    """Have Alice's phone be sealed by a key that is gone; return the key's name."""
    host.rotation.rotate()
    kept = host.store.documents.path("alice").read_bytes()
    lost = host.rotation.ring.used
    host.rotation.rotate()
    host.store.documents.path("alice").write_bytes(kept)
    return lost


def test_doctor_names_whose_key_is_lost(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """``doctor`` names who is locked out by a key that is not in the ring, and what to do."""
    monkeypatch.setattr(seals, "drop_privileges", lambda: None)
    lost = lose_key(host)
    host.store.close()
    (found,) = seals.check_seal_key(View(host.layout))
    assert (Level.FAULT, True, True) == (
        found.level, f"the key {lost} is not in the ring" in found.what, "alice" in found.what,
    )  # fmt: skip
    assert "--stage --from" in found.advice


def test_doctor_sees_a_rotation(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """``doctor`` tells of keys that are staged or still there."""
    monkeypatch.setattr(seals, "drop_privileges", lambda: None)
    host.rotation.stage()
    host.rotation.use()
    host.rotation.stage()
    host.store.close()
    levels = [one.level for one in seals.check_seal_key(View(host.layout))]
    assert [Level.NOTICE, Level.NOTICE, Level.OK] == levels


def test_doctor_sees_a_broken_ring(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """``doctor`` says what is wrong with a ring, and where."""
    monkeypatch.setattr(seals, "drop_privileges", lambda: None)
    host.layout.seal_key.write_bytes(b"x" * 40)
    (found,) = examine(View(host.layout), (("seal key", seals.check_seal_key),))
    assert (Level.FAULT, True) == (found.level, "neither a key" in found.what)


def invoke(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(commands, arguments, catch_exceptions=False)


def test_verification_is_remembered_over_it(host: Host) -> None:
    """What was verified in one phase of a login counts in the next, rotated in between."""
    (before,) = host.store.read_enrollment("alice").devices
    host.rotation.rotate()
    (after,) = host.store.read_enrollment("alice").devices
    assert before.device != after.device
    assert hash_device(before.device) == hash_device(after.device)


def test_key_made_old_while_another_process_retires(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation that begins behind another's count of what is needed loses it no key."""
    host.rotation.stage()
    host.rotation.use()
    count = host.rotation.take_census

    def count_then_others_rotate() -> Census:
        census = count()
        other = open_host(host.layout)
        other.rotation.stage()
        # Killed before it has sealed anything anew: all is sealed by what is an old key now.
        monkeypatch.setattr(Resealing, "carry_out", lambda _: 0)
        other.rotation.use()
        return census

    monkeypatch.setattr(host.rotation, "take_census", count_then_others_rotate)
    ring = host.rotation.finish()
    assert 2 == len(ring.keys)
    monkeypatch.undo()
    host = open_host(host.layout)
    assert 1 == len(host.rotation.rotate().ring.keys)
    assert not host.rotation.take_census().holders


def test_device_enabled_while_a_ring_is_taken(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first device that is enabled while another ring is taken keeps the key that sealed it."""
    new = open_host(make_layout(tmp_path / "new"))
    look = new.rotation._is_new_host  # noqa: SLF001 - the moment between look and change
    looks: list[bool] = []

    def look_then_enable() -> bool:
        looks.append(look())
        if len(looks) == 1:
            open_host(new.layout).enable("dave")
        return looks[-1]

    monkeypatch.setattr(new.rotation, "_is_new_host", look_then_enable)
    with pytest.raises(RefusedError, match="another fleet"):
        new.rotation.stage(host.rotation.ring)
    assert [True, False] == looks
    assert not new.rotation.take_census().holders
