# SPDX-License-Identifier: Apache-2.0
"""Device files by user: one safe file name for every name, and nobody else's file."""

import hashlib
import multiprocessing
import os
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest
from doubles import make_device
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.devices import DEVICES_MAX, format_devices
from pam_mfa.errors import BrokenSystemError, DocumentError, UnsafeFileError
from pam_mfa.store import encode_user
from pam_mfa.store.device_files import DeviceFiles

ANY_NAME = st.binary(max_size=400).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
TRICKY = st.text(st.sampled_from("a%2E./~?\0\né"), max_size=12)
LONG = st.builds(
    lambda start, count, end: start * count + end,
    st.sampled_from("a/%"),
    st.integers(60, 300),
    st.text(st.sampled_from("ab/%"), max_size=3),
)
NAMES = ANY_NAME | TRICKY | LONG
DEVICE = make_device()


@pytest.fixture
def files(tmp_path: Path) -> DeviceFiles:
    """Device files in an empty directory."""
    return DeviceFiles(tmp_path)


@given(NAMES, NAMES)
def test_one_stem_a_name(one: str, other: str) -> None:
    """Different names have different stems."""
    assert (one == other) is (encode_user(one) == encode_user(other))


@given(NAMES.filter(bool))
def test_safe_file_name(user: str) -> None:
    """A stem is ASCII without slash, NUL or leading dot, and short enough for a draft's name."""
    stem = encode_user(user)
    draft = f"{stem}.yaml.0123456789ab.new"
    assert stem.isascii()
    assert stem.isprintable()
    assert "/" not in stem
    assert not stem.startswith(".")
    assert 1 <= len(draft) <= 255


@pytest.mark.parametrize(
    ("user", "stem"),
    [
        ("alice", "alice"), ("Alice", "Alice"), ("a_b-c.d~e", "a_b-c.d~e"),
        ("../x", "%2E.%2Fx"), ("..", "%2E."), (".", "%2E"), (".hidden", "%2Ehidden"),
        ("a/b", "a%2Fb"), ("/etc/passwd", "%2Fetc%2Fpasswd"), ("DOMAIN\\user", "DOMAIN%5Cuser"),
        ("user@corp", "user%40corp"), ("a\nb", "a%0Ab"), ("a\0b", "a%00b"), ("a b", "a%20b"),
        ("%2E", "%252E"), ("ü", "%C3%BC"), ("\udcff", "%FF"), ("-rf", "-rf"), ("~root", "~root"),
        ("?", "%3F"), ("alice.yaml", "alice.yaml"), ("x" * 200, "x" * 200),
    ],
)  # fmt: skip
def test_stems(user: str, stem: str) -> None:
    """Names have the stems that the documentation describes."""
    assert stem == encode_user(user)


@pytest.mark.parametrize("user", ["x" * 201, "x" * 300, "/" * 67, "ü" * 150, "%" * 300])
def test_long_names(user: str) -> None:
    """A long name's stem ends in its SHA-256, after a mark that no other stem has."""
    start, mark, digest = encode_user(user).rpartition("%%")
    sha256 = hashlib.sha256(user.encode()).hexdigest()
    assert ("%%", sha256) == (mark, digest)
    assert user.encode().startswith(urllib.parse.unquote_to_bytes(start))


@pytest.mark.parametrize(
    "user", ["alice", "../x", "a/b", "x" * 256, "DOMAIN\\user", ".a", "ü", "%%", "alice.yaml"]
)
def test_round_trip(files: DeviceFiles, user: str) -> None:
    """Devices that were written for a user of any name are read back and listed."""
    device = make_device(user=user)
    files.write(user, (device,))
    assert ((device,), [user]) == (files.read(user), list(files.users()))


def test_all_in_the_directory(tmp_path: Path) -> None:
    """No name leads out of the directory."""
    inner = tmp_path / "inner"
    inner.mkdir()
    for user in ("../x", "..", "/x", "a/../../x"):
        DeviceFiles(inner).write(user, (DEVICE,))
    assert ([inner], 4) == (list(tmp_path.iterdir()), len(list(inner.iterdir())))


def test_nobody(files: DeviceFiles) -> None:
    """A user without a file has no devices, and nobody is listed."""
    assert ((), []) == (files.read("alice"), list(files.users()))


def test_no_directory(tmp_path: Path) -> None:
    """Where the directory cannot be seen, nobody counts as not enrolled."""
    with pytest.raises(UnsafeFileError, match=f"there is no directory {tmp_path}/none"):
        DeviceFiles(tmp_path / "none").read("alice")


def test_order(files: DeviceFiles) -> None:
    """Users are listed by name, and neither lock nor drafts are taken for users."""
    for user in ("carol", "alice", "bob"):
        files.write(user, (DEVICE,))
    with files.lock():
        (files.path("alice").parent / "dave.yaml.0123.new").touch()
    assert ["alice", "bob", "carol"] == list(files.users())


def test_files_of_nobody(files: DeviceFiles) -> None:
    """A file that is nobody's is told with the reason, and no user is listed twice for it."""
    files.write("alice", (DEVICE,))
    for stem in ("%61lice", "al%%00", ".b"):
        path = files.path("alice").with_name(f"{stem}.yaml")
        path.write_text("x")
        path.chmod(0o600)
    entries = files.entries()
    assert [("%61lice", False), (".b", False), ("al%%00", False), ("alice", True)] == [
        (entry.user, not entry.problem) for entry in entries
    ]
    with pytest.raises(UnsafeFileError, match="has a name that no user's device file has"):
        list(files.users())


def test_directory_that_cannot_be_listed(tmp_path: Path) -> None:
    """Where the directory is gone, nobody is said to have a file."""
    with pytest.raises(UnsafeFileError, match="cannot be read: No such file"):
        DeviceFiles(tmp_path / "none").entries()


def test_mode(files: DeviceFiles) -> None:
    """A device file is its owner's alone."""
    files.write("alice", (DEVICE,))
    assert 0o600 == files.path("alice").stat().st_mode & 0o777


def link(path: Path) -> None:
    """Put a link to another user's file in a file's place."""
    path.rename(path.with_name("bob.yaml"))
    path.symlink_to("bob.yaml")


def fifo(path: Path) -> None:
    """Put a fifo in a file's place."""
    path.unlink()
    os.mkfifo(path, 0o600)


def directory(path: Path) -> None:
    """Put a directory in a file's place."""
    path.unlink()
    path.mkdir()


def loosen(path: Path) -> None:
    """Let everybody read a file."""
    path.chmod(0o604)


def loosen_for_group(path: Path) -> None:
    """Let the group read a file."""
    path.chmod(0o640)


def grow(path: Path) -> None:
    """Make a file longer than it may be."""
    path.write_bytes(path.read_bytes() + b"#" * 65536)


@pytest.mark.parametrize("spoil", [link, fifo, directory, loosen, loosen_for_group, grow])
def test_unsafe_files(files: DeviceFiles, spoil: Callable[[Path], None]) -> None:
    """A device file that is not a regular, small file of ours alone is not read."""
    files.write("alice", (DEVICE,))
    spoil(files.path("alice"))
    with pytest.raises(UnsafeFileError):
        files.read("alice")


def test_file_of_another_owner(files: DeviceFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device file that another user owns is not read."""
    files.write("alice", (DEVICE,))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UnsafeFileError, match="belongs to user id"):
        files.read("alice")


def test_copied_file(files: DeviceFiles) -> None:
    """Another user's file under one's own name lends no device."""
    files.write("alice", (DEVICE,))
    files.path("alice").rename(files.path("mallory"))
    with pytest.raises(DocumentError, match="is not the user whose file this is"):
        files.read("mallory")


def test_error_names_the_file(files: DeviceFiles) -> None:
    """A mistake in a device file is told with the file's path."""
    path = files.path("alice")
    path.write_bytes(format_devices("alice", [DEVICE]).replace(b"SHA1", b"MD5"))
    path.chmod(0o600)
    with pytest.raises(DocumentError, match=f"{path}, line 8: "):
        files.read("alice")


def test_lock_that_cannot_be_made(tmp_path: Path) -> None:
    """A lock that cannot be made is an error with its path."""
    path = tmp_path / "none"
    refused = pytest.raises(BrokenSystemError, match=f"{path}/.lock cannot be opened")
    with refused, DeviceFiles(path).lock():
        pass


def test_lock_is_no_link(tmp_path: Path, files: DeviceFiles) -> None:
    """A lock file that is a link is not followed."""
    (tmp_path / ".lock").symlink_to("elsewhere")
    with pytest.raises(BrokenSystemError), files.lock():
        pass
    assert not (tmp_path / "elsewhere").exists()


def add_devices(path: Path, start: int) -> None:
    """Add four devices, one after the other, each under the lock."""
    files = DeviceFiles(path)
    for number in range(start, start + 4):
        with files.lock():
            files.write("alice", (*files.read("alice"), make_device(f"phone-{number}")))


def test_lock(tmp_path: Path, files: DeviceFiles) -> None:
    """Two processes that change one user's devices under the lock lose none of them."""
    spawn = multiprocessing.get_context("fork")
    workers = [spawn.Process(target=add_devices, args=(tmp_path, start)) for start in (0, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert DEVICES_MAX == len(files.read("alice"))
