# SPDX-License-Identifier: Apache-2.0
"""The store on disk: whoever has no usable device gets a decoy that nobody can tell."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doubles import OTHER_SEED, SEED, make_device, make_event, make_layout
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.devices import VirtualDevice
from pam_mfa.errors import BrokenSystemError
from pam_mfa.secret import Secret
from pam_mfa.store import Change, Claim, Standing, encode_user
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.key_ring import ring_of
from pam_mfa.store.layout import Layout
from pam_mfa.store.seal import Sealer


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """An empty root."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    return make_layout(tmp_path)


@pytest.fixture
def store(layout: Layout) -> Iterator[EmbeddedStore]:
    """A store that nobody has used."""
    store = EmbeddedStore(layout)
    yield store
    store.close()


def sealed(sealer: Sealer, name: str = "phone", seed: Secret = SEED) -> VirtualDevice:
    """Return a device of Alice whose seed is sealed."""
    device = make_device(name)
    return device._replace(sealed_seed=sealer.seal(seed, "alice", device.serial_number))


def test_enrolled(store: EmbeddedStore) -> None:
    """A user's devices are read with their seeds."""
    devices = (sealed(store.sealer), sealed(store.sealer, "tablet", OTHER_SEED))
    store.documents.write("alice", devices)
    enrollment = store.read_enrollment("alice")
    assert ("alice", Standing.ENROLLED, devices, (SEED, OTHER_SEED), "") == (
        enrollment.user_key,
        enrollment.standing,
        tuple(opened.device for opened in enrollment.devices),
        tuple(opened.seed for opened in enrollment.devices),
        enrollment.problem,
    )


def test_not_enrolled(store: EmbeddedStore) -> None:
    """A user without a file is not enrolled and has one decoy of the usual form."""
    enrollment = store.read_enrollment("alice")
    decoy = enrollment.devices[0]
    assert (Standing.NOT_ENROLLED, 1, "virtual", 20, "") == (
        enrollment.standing, len(enrollment.devices), decoy.device.type, len(decoy.seed.reveal()),
        enrollment.problem,
    )  # fmt: skip


def test_no_device_left(store: EmbeddedStore) -> None:
    """A user whose last device was taken is not enrolled."""
    store.documents.write("alice", ())
    assert Standing.NOT_ENROLLED is store.read_enrollment("alice").standing


def test_nobody_knows_the_decoy(store: EmbeddedStore, layout: Layout) -> None:
    """Each process has another decoy, whose seed is on no disk."""
    other = EmbeddedStore(layout)
    seeds = {each.read_enrollment("x").devices[0].seed.reveal() for each in (store, other)}
    other.close()
    assert (2, []) == (len(seeds), list(layout.devices.iterdir()))


def test_user_who_is_called_like_the_decoy(store: EmbeddedStore) -> None:
    """The decoy's own user name is nobody's login."""
    enrollment = store.read_enrollment("?")
    assert (Standing.NOT_ENROLLED, True) == (
        enrollment.standing, enrollment.user_key.startswith("?"),
    )  # fmt: skip


def torn(store: EmbeddedStore) -> str:
    """Cut Alice's device file before its last key."""
    path = store.documents.path("alice")
    path.write_bytes(path.read_bytes().partition(b"  secret:")[0])
    return "'devices[0].secret' is missing"


def readable(store: EmbeddedStore) -> str:
    """Let everybody read Alice's device file."""
    store.documents.path("alice").chmod(0o644)
    return "has the mode 0644"


def directory(store: EmbeddedStore) -> str:
    """Put a directory in the place of Alice's device file."""
    store.documents.path("alice").unlink()
    store.documents.path("alice").mkdir()
    return "is not a regular file"


def wrong_tag(store: EmbeddedStore) -> str:
    """Give a value of Alice's device file a tag that it does not fit."""
    path = store.documents.path("alice")
    path.write_bytes(path.read_bytes().replace(b"digits: 6", b"digits: !!bool 6"))
    return "line 9"


def other_key(store: EmbeddedStore) -> str:
    """Seal Alice's device with another host's key."""
    store.documents.write("alice", (sealed(Sealer(ring_of(Secret(bytes(32))))),))
    return "does not open with this host's seal key"


def unmounted(store: EmbeddedStore) -> str:
    """Take the directory of devices away."""
    directory = store.documents.path("alice").parent
    directory.rename(directory.with_name("elsewhere"))
    return "there is no directory"


@pytest.mark.parametrize("spoil", [torn, readable, directory, wrong_tag, other_key, unmounted])
def test_unreadable(store: EmbeddedStore, spoil: Callable[[EmbeddedStore], str]) -> None:
    """Devices that cannot be read make no "not enrolled"; the log is told why."""
    store.documents.write("alice", (sealed(store.sealer),))
    expected = spoil(store)
    enrollment = store.read_enrollment("alice")
    assert (Standing.UNREADABLE, 1, True) == (
        enrollment.standing, len(enrollment.devices), enrollment.user_key.startswith("?"),
    )  # fmt: skip
    assert expected in enrollment.problem


def test_one_device_that_does_not_open(store: EmbeddedStore) -> None:
    """A device that does not open leaves the others usable, and is told of."""
    stolen = sealed(store.sealer)._replace(name="copy", serial_number="virtual/alice/copy")
    store.documents.write("alice", (stolen, sealed(store.sealer)))
    enrollment = store.read_enrollment("alice")
    assert (Standing.ENROLLED, ["phone"]) == (
        enrollment.standing, [opened.device.name for opened in enrollment.devices],
    )  # fmt: skip
    assert "device virtual/alice/copy does not open" in enrollment.problem


@pytest.mark.parametrize("user", ["", "../x", "a/b", "x" * 5000, "\udcff\udcfe", "a\nb", "\0", "?"])
def test_any_name(store: EmbeddedStore, user: str) -> None:
    """Whatever was typed as a user name, the answer is "not enrolled"."""
    assert Standing.NOT_ENROLLED is store.read_enrollment(user).standing


def test_keys_of_unknown_names(store: EmbeddedStore) -> None:
    """However many unknown names are tried, they fill a bounded number of rows."""
    keys = {store.read_enrollment(f"user{number}").user_key for number in range(4000)}
    assert (True, {"?"}) == (900 < len(keys) <= 1024, {key[0] for key in keys})


@given(st.text(max_size=20))
def test_no_user_has_a_decoys_key(user: str) -> None:
    """The key of an enrolled user's row is never that of a decoy."""
    assert not encode_user(user).startswith("?")


def test_pseudonym(store: EmbeddedStore, layout: Layout) -> None:
    """A name's pseudonym stays the same after a restart."""
    other = EmbeddedStore(layout)
    assert store.pseudonym("hunter2") == other.pseudonym("hunter2")
    other.close()


def test_commit(store: EmbeddedStore, layout: Layout) -> None:
    """A committed record is in the log."""
    change = Change(accepted=False, events=(make_event("alice"),))
    assert [change] == store.commit([Claim("alice", (), lambda _: change)])
    assert b'"user":"alice"' in layout.audit_log.read_bytes()


def test_commit_without_a_store(layout: Layout) -> None:
    """Where no store is mounted yet, a commit is an error and begins no new state."""
    layout.devices.rmdir()
    store = EmbeddedStore(layout, is_patient=True)
    with pytest.raises(BrokenSystemError, match="there is no directory"):
        store.commit([])
    store.close()
    assert [] == list(layout.library.iterdir())
