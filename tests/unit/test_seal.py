# SPDX-License-Identifier: Apache-2.0
"""Sealed seeds open for their user, their device and their key only."""

import base64
import os
from pathlib import Path

import pytest
from doubles import OTHER_SEED, SEED, make_layout
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.errors import BrokenSystemError, SealError, UnknownKeyError, UnsafeFileError
from pam_mfa.secret import Secret
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.key_ring import KEY_BYTES, retire, ring_of, stage, use_newest
from pam_mfa.store.layout import Layout
from pam_mfa.store.seal import CREDENTIAL, FIRST, Sealer, load_sealer

KEY = Secret(bytes(range(32)))
SEALER = Sealer(ring_of(KEY))
PHONE = "virtual/alice/phone"
SEALED = SEALER.seal(SEED, "alice", PHONE)
PREFIX = "sealed:v1:"
NAMES = st.text(st.characters(codec="utf-8"), max_size=30)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """An empty root, and no credential."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    return make_layout(tmp_path)


def does_open(sealed: str, user: str = "alice", serial_number: str = PHONE) -> bool:
    """Whether a text opens for a user and a device."""
    try:
        return SEALER.open(sealed, user, serial_number) == SEED
    except SealError:
        return False


@given(st.binary(min_size=1, max_size=128).map(Secret), NAMES, NAMES)
def test_round_trip(seed: Secret, user: str, serial_number: str) -> None:
    """What was sealed opens for the same user and device."""
    sealed = SEALER.seal(seed, user, serial_number)
    assert seed == SEALER.open(sealed, user, serial_number)


@pytest.mark.parametrize("size", [0, 1, 10, 13, 14, 20, 64, 128])
def test_length_is_told_without_opening(size: int) -> None:
    """How long a sealed seed is shows, by another key as well."""
    sealed = Sealer(ring_of(Secret(bytes(32)))).seal(Secret(bytes(size)), "alice", PHONE)
    assert size * 8 == SEALER.sealed_bits(sealed)


@pytest.mark.parametrize("text", ["", PREFIX, "sealed:v1:AAAA", "x", "JBSWY3DPEHPK3PXP", "ü", "="])
def test_length_of_no_seed(text: str) -> None:
    """What is no sealed seed has no length."""
    assert 0 == SEALER.sealed_bits(text)


def test_text() -> None:
    """A sealed text is one word of a known form and holds nothing of the seed."""
    raw = base64.b64decode(SEALED.removeprefix(PREFIX), validate=True)
    assert (True, 12 + 20 + 16, False) == (
        SEALED.startswith(PREFIX), len(raw), SEED.reveal() in raw,
    )  # fmt: skip


def test_never_the_same() -> None:
    """The same seed is sealed into another text every time."""
    assert 100 == len({SEALER.seal(SEED, "alice", PHONE) for _ in range(100)})


@pytest.mark.parametrize(
    ("user", "serial_number"),
    [
        ("bob", PHONE), ("Alice", PHONE), ("", PHONE), ("alice ", PHONE),
        ("alice", "virtual/alice/tablet"), ("alice", ""), (PHONE, "alice"),
        ("alicevirtual", "/alice/phone"),
    ],
)  # fmt: skip
def test_others(user: str, serial_number: str) -> None:
    """What was sealed for one user and device opens for no other."""
    assert not does_open(SEALED, user, serial_number)


def test_other_key() -> None:
    """What was sealed with one key does not open with another."""
    with pytest.raises(SealError, match=f"the secret of device {PHONE} does not open"):
        Sealer(ring_of(Secret(bytes(32)))).open(SEALED, "alice", PHONE)


@given(st.integers(0, 47), st.integers(1, 255))
def test_changed_bytes(place: int, change: int) -> None:
    """With any byte changed, nothing opens."""
    raw = bytearray(base64.b64decode(SEALED.removeprefix(PREFIX)))
    raw[place] ^= change
    assert not does_open(PREFIX + base64.b64encode(raw).decode("ascii"))


@given(st.text(max_size=80))
def test_any_text(text: str) -> None:
    """A text that was never sealed does not open, with or without the prefix."""
    assert [False, False] == [does_open(text), does_open(PREFIX + text)]


@pytest.mark.parametrize(
    "sealed",
    ["", PREFIX, f"{PREFIX}AAAA", SEALED[:-1], SEALED[:-4], f"{SEALED}AAAA", f"{SEALED}\n",
     f" {SEALED}", SEALED.removeprefix(PREFIX), SEALED.replace("v1", "v2"),
     SEALED.upper(), f"{PREFIX}{'A' * 16}", f"{PREFIX}ü"],
)  # fmt: skip
def test_changed_text(sealed: str) -> None:
    """A cut, lengthened or otherwise changed text does not open."""
    assert not does_open(sealed)


def test_key_that_is_not_in_the_ring() -> None:
    """What another key of that fleet sealed says which key is needed, and how to get it."""
    newer = Sealer(use_newest(stage(SEALER.ring, Secret(bytes(32)))))
    with pytest.raises(UnknownKeyError, match=f"by the key {newer.ring.used}") as caught:
        SEALER.open(newer.seal(SEED, "alice", PHONE), "alice", PHONE)
    assert "--stage --from" in caught.value.hint


def test_first_key_that_was_retired() -> None:
    """What was sealed before keys had names does not open by others than the first."""
    newest = Sealer(retire(use_newest(stage(SEALER.ring, Secret(bytes(32))))))
    with pytest.raises(UnknownKeyError, match="by the first key"):
        newest.open(SEALED, "alice", PHONE)
    assert (FIRST, "") == (newest.key_of(SEALED), newest.key_of("sealed:v3:x"))


def test_every_key_of_a_ring_opens() -> None:
    """A staged key changes nothing that is sealed; used, it names itself; both open."""
    staged = Sealer(stage(SEALER.ring, Secret(bytes(32))))
    used = Sealer(use_newest(staged.ring))
    texts = [SEALED, staged.seal(SEED, "alice", PHONE), used.seal(SEED, "alice", PHONE)]
    assert [PREFIX, PREFIX, f"sealed:v2:{used.ring.used}:"] == [
        f"{text.rpartition(':')[0]}:" for text in texts
    ]
    opened = [one.open(text, "alice", PHONE) for one in (staged, used) for text in texts]
    assert [SEED] * 6 == opened
    assert [160] * 3 == [used.sealed_bits(text) for text in texts]


def test_hashes_outlive_a_rotation() -> None:
    """What is hashed stays what it was when the first key is gone."""
    newest = Sealer(retire(use_newest(stage(SEALER.ring, Secret(bytes(32))))))
    hashes = [
        (one.pseudonym("bob"), one.fingerprint(SEED), one.code_hash("123", "bob", "x"))
        for one in (SEALER, newest)
    ]
    assert hashes[0] == hashes[1]


def test_error_tells_nothing() -> None:
    """The error says what to do, and holds neither the sealed text nor a key."""
    with pytest.raises(SealError) as caught:
        SEALER.open(SEALED[:-4], "alice", PHONE)
    told = f"{caught.value} {caught.value.hint}"
    assert (True, False) == ("enable it again" in told, SEALED[10:20] in told)


def test_pseudonym() -> None:
    """A pseudonym is the same for the same name, and 16 hexadecimal digits."""
    first, second = SEALER.pseudonym("hunter2"), SEALER.pseudonym("hunter2")
    assert (second, 16) == (first, len(f"{int(first, 16):016x}"))


def test_pseudonyms_differ() -> None:
    """Another name or another key has another pseudonym."""
    names = {SEALER.pseudonym(text) for text in ("a", "b", "")}
    assert 4 == len(names | {Sealer(ring_of(Secret(bytes(32)))).pseudonym("a")})


def test_pseudonym_of_other_bytes() -> None:
    """A name that is no UTF-8 has a pseudonym."""
    assert 16 == len(SEALER.pseudonym("\udcff"))


def test_first_key(layout: Layout) -> None:
    """The first use makes a key of 32 bytes for its owner alone."""
    load_sealer(layout)
    about = layout.seal_key.stat()
    assert (KEY_BYTES, 0o600) == (about.st_size, about.st_mode & 0o777)


def test_same_key(layout: Layout) -> None:
    """The next use has the same key."""
    sealed = load_sealer(layout).seal(OTHER_SEED, "alice", PHONE)
    assert OTHER_SEED == load_sealer(layout).open(sealed, "alice", PHONE)


def test_lost_key(layout: Layout) -> None:
    """Where devices are there but their key is not, no new key is made."""
    (layout.devices / "alice.yaml").touch()
    with pytest.raises(BrokenSystemError, match="is missing and devices are there") as caught:
        load_sealer(layout)
    assert (False, True) == (layout.seal_key.exists(), "backup" in caught.value.hint)


def test_no_store(layout: Layout) -> None:
    """Where the devices' directory is not there, no key is made: it may only not be mounted."""
    layout.devices.rmdir()
    with pytest.raises(BrokenSystemError, match=f"there is no directory {layout.devices}"):
        EmbeddedStore(layout)
    assert not layout.seal_key.exists()


def test_store_that_others_may_write(layout: Layout) -> None:
    """A directory in which others could swap the state is refused."""
    layout.library.chmod(0o777)
    with pytest.raises(UnsafeFileError, match="others may write to"):
        EmbeddedStore(layout)


@pytest.mark.parametrize(
    ("size", "error"),
    [(0, BrokenSystemError), (31, BrokenSystemError), (33, BrokenSystemError),
     (4097, UnsafeFileError)],
)  # fmt: skip
def test_key_of_other_size(layout: Layout, size: int, error: type[Exception]) -> None:
    """A file of another size is no key, and it stands."""
    layout.seal_key.write_bytes(bytes(size))
    layout.seal_key.chmod(0o600)
    with pytest.raises(error, match=str(layout.seal_key)):
        load_sealer(layout)
    assert size == layout.seal_key.stat().st_size


def test_key_that_others_can_read(layout: Layout) -> None:
    """A key that others can read is not used."""
    load_sealer(layout)
    layout.seal_key.chmod(0o640)
    with pytest.raises(UnsafeFileError, match="has the mode 0640"):
        load_sealer(layout)


@pytest.mark.parametrize("target", ["key-elsewhere", "nothing"])
def test_key_behind_a_link(layout: Layout, target: str) -> None:
    """A key behind a link is not used, nor made."""
    elsewhere = layout.library / "key-elsewhere"
    elsewhere.write_bytes(bytes(32))
    elsewhere.chmod(0o600)
    layout.seal_key.symlink_to(target)
    with pytest.raises(UnsafeFileError):
        load_sealer(layout)
    assert not (layout.library / "nothing").exists()


def test_credential(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd hands over a key, it is used and none is made."""
    path = layout.run / CREDENTIAL
    path.write_bytes(KEY.reveal())
    path.chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(layout.run))
    sealer = load_sealer(layout)
    assert (SEED, False) == (sealer.open(SEALED, "alice", PHONE), layout.seal_key.exists())


def test_other_credentials(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd hands over other credentials only, the host's own key is used."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(layout.run))
    load_sealer(layout)
    assert layout.seal_key.exists()


def test_two_first_uses(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes that make the first key at once, both end with the same."""
    link, first = os.link, Secret(bytes(range(32)))

    def lose(source: Path, target: Path) -> None:
        target.write_bytes(first.reveal())
        target.chmod(0o600)
        link(source, target)

    monkeypatch.setattr(os, "link", lose)
    assert SEED == load_sealer(layout).open(SEALED, "alice", PHONE)
