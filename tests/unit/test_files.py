# SPDX-License-Identifier: Apache-2.0
"""Files that are not trusted by their name, and replaced whole or not at all."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from doubles import count_descriptors

from pam_mfa.errors import BrokenSystemError, UnsafeFileError
from pam_mfa.store.files import (
    create_file,
    read_file,
    remove_drafts,
    replace_file,
    replace_files,
)

OURS = {os.geteuid()}


def read(path: Path, size_max: int = 100) -> bytes:
    """Read a file that must be ours alone."""
    return read_file(path, owners=OURS, forbidden=0o077, size_max=size_max)


def make(path: Path, mode: int = 0o600, data: bytes = b"data") -> Path:
    """Make a file of ours."""
    path.write_bytes(data)
    path.chmod(mode)
    return path


def make_link(path: Path) -> Path:
    """Make a symbolic link to a file that would itself do."""
    path.symlink_to(make(path.with_name("target")))
    return path


def make_dangling(path: Path) -> Path:
    """Make a symbolic link to nothing."""
    path.symlink_to(path.with_name("nothing"))
    return path


def make_fifo(path: Path) -> Path:
    """Make a fifo that nobody writes to."""
    os.mkfifo(path, 0o600)
    return path


def make_directory(path: Path) -> Path:
    """Make a directory."""
    path.mkdir(mode=0o700)
    return path


def below_file(path: Path) -> Path:
    """Return a path whose directory is a file."""
    return make(path) / "file"


def fail(*_arguments: object, **_options: object) -> NoReturn:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_read(tmp_path: Path, mode: int) -> None:
    """A regular file of ours, that no other may read or write, is read."""
    assert b"data" == read(make(tmp_path / "f", mode))


def test_absent(tmp_path: Path) -> None:
    """A file that is not there is told apart from one that is not safe."""
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "f")


@pytest.mark.parametrize(
    ("make_one", "words"),
    [
        (make_link, "cannot be opened"),
        (make_dangling, "cannot be opened"),
        (make_fifo, "is not a regular file"),
        (make_directory, "is not a regular file"),
        (below_file, "cannot be opened"),
    ],
)
def test_other_kinds(tmp_path: Path, make_one: Callable[[Path], Path], words: str) -> None:
    """What is no regular file is refused by name, and does not hang."""
    path = make_one(tmp_path / "f")
    with pytest.raises(UnsafeFileError, match=rf"\A{path} {words}"):
        read(path)


def test_device_node() -> None:
    """A device is no regular file."""
    with pytest.raises(UnsafeFileError, match="is not a regular file"):
        read_file(Path("/dev/null"), owners={0}, forbidden=0, size_max=1)


@pytest.mark.parametrize("make_one", [make_link, make_fifo, make_directory])
def test_no_descriptor_is_left(tmp_path: Path, make_one: Callable[[Path], Path]) -> None:
    """A refused file leaves no descriptor open."""
    path = make_one(tmp_path / "f")
    before = count_descriptors()
    with pytest.raises((UnsafeFileError, OSError)):
        read(path)
    assert before == count_descriptors()


@pytest.mark.parametrize("mode", [0o601, 0o602, 0o604, 0o610, 0o620, 0o640, 0o644, 0o666, 0o777])
def test_modes(tmp_path: Path, mode: int) -> None:
    """A file that others can get at is refused, with the command that mends it."""
    path = make(tmp_path / "f", mode)
    with pytest.raises(UnsafeFileError, match=f"{path} has the mode {mode:04o}") as caught:
        read(path)
    assert caught.value.hint.endswith(f": chmod {mode & 0o700:04o} {path}")


def test_forbidden_bits(tmp_path: Path) -> None:
    """Only the forbidden bits matter: a policy may be read by all."""
    path = make(tmp_path / "f", 0o644)
    assert b"data" == read_file(path, owners=OURS, forbidden=0o022, size_max=10)


def test_owner(tmp_path: Path) -> None:
    """A file of somebody else is refused, with the command that mends it."""
    path = make(tmp_path / "f")
    other = os.geteuid() + 1
    with pytest.raises(
        UnsafeFileError, match=f"belongs to user id {os.geteuid()}, not to"
    ) as caught:
        read_file(path, owners={other}, forbidden=0, size_max=10)
    assert f"If its content is right: chown {other} {path}" == caught.value.hint


@pytest.mark.parametrize(("size", "is_read"), [(0, True), (99, True), (100, True), (101, False)])
def test_size(tmp_path: Path, size: int, is_read: bool) -> None:  # noqa: FBT001 - a table's column
    """A file is read up to the size it may have, and refused beyond."""
    path = make(tmp_path / "f", data=b"x" * size)
    if is_read:
        assert size == len(read(path))
    else:
        with pytest.raises(UnsafeFileError, match=f"{path} is larger than 100 bytes"):
            read(path)


PUT = pytest.mark.parametrize("put", [replace_file, create_file])
Put = Callable[[Path, bytes, int], None]


@PUT
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_new_file(tmp_path: Path, put: Put, mode: int) -> None:
    """A new file has its content and mode, and is alone in its directory."""
    path = tmp_path / "f"
    put(path, b"new", mode)
    about = path.stat()
    assert (b"new", mode, 1, [path]) == (
        path.read_bytes(), stat.S_IMODE(about.st_mode), about.st_nlink, list(tmp_path.iterdir()),
    )  # fmt: skip


def test_replace(tmp_path: Path) -> None:
    """A file is replaced by a new one: who has the old one open reads the old content."""
    path = make(tmp_path / "f", data=b"old")
    with path.open("rb") as opened:
        replace_file(path, b"new", 0o600)
        assert (b"old", b"new", [path]) == (
            opened.read(), path.read_bytes(), list(tmp_path.iterdir()),
        )  # fmt: skip


def test_replace_loosened(tmp_path: Path) -> None:
    """A replaced file does not inherit the old one's looser mode."""
    path = make(tmp_path / "f", 0o666)
    replace_file(path, b"new", 0o600)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_replace_link(tmp_path: Path) -> None:
    """A symbolic link is replaced itself; what it points to stands."""
    path = make_link(tmp_path / "f")
    replace_file(path, b"new", 0o600)
    assert (False, b"new", b"data") == (
        path.is_symlink(), path.read_bytes(), (tmp_path / "target").read_bytes(),
    )  # fmt: skip


def test_create_second(tmp_path: Path) -> None:
    """Where a file was made first by somebody else, it stands."""
    path = make(tmp_path / "f", data=b"first")
    create_file(path, b"second", 0o600)
    assert (b"first", [path]) == (path.read_bytes(), list(tmp_path.iterdir()))


@PUT
@pytest.mark.parametrize("call", ["fsync", "open"])
def test_failing_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Put, call: str
) -> None:
    """Where the draft cannot be made durable, the old file stands and no draft is left."""
    path = make(tmp_path / "f", data=b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(BrokenSystemError, match=rf"\A{path} cannot be written: No space left"):
            put(path, b"new", 0o600)
    assert (b"old", [path]) == (path.read_bytes(), list(tmp_path.iterdir()))


def test_failing_rename(tmp_path: Path) -> None:
    """Where the draft cannot take the place, it is not left behind."""
    path = make_directory(tmp_path / "f")
    with pytest.raises(BrokenSystemError, match="cannot be written: Is a directory"):
        replace_file(path, b"new", 0o600)
    assert [path] == list(tmp_path.iterdir())


@PUT
def test_no_directory(tmp_path: Path, put: Put) -> None:
    """Where there is no directory, the error says where to look."""
    with pytest.raises(BrokenSystemError) as caught:
        put(tmp_path / "none/f", b"new", 0o600)
    assert f"See: df {tmp_path}/none; ls -ld {tmp_path}/none" == caught.value.hint


def test_durable_before_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The draft is synced before it takes the place, and the directory after."""
    path = make(tmp_path / "f", data=b"old")
    seen: list[tuple[bool, bytes]] = []

    def sync(descriptor: int) -> None:
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.read_bytes()))

    monkeypatch.setattr(os, "fsync", sync)
    replace_file(path, b"new", 0o600)
    assert [(False, b"old"), (True, b"new")] == seen


def test_replace_many(tmp_path: Path) -> None:
    """Many files are replaced or made at once, and are alone in their directory."""
    old = make(tmp_path / "0", 0o666, b"old")
    contents = [(tmp_path / str(number), b"%d" % number) for number in range(9)]
    replace_files(contents, 0o600)
    found = [(path, path.read_bytes()) for path in sorted(tmp_path.iterdir())]
    assert (contents, 0o600) == (found, stat.S_IMODE(old.stat().st_mode))
    replace_files([], 0o600)


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_failing_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Where one of many drafts cannot be made durable, every old file stands, and no draft."""
    paths = [make(tmp_path / str(number), data=b"old") for number in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(BrokenSystemError, match=r"cannot be written: No space left"):
            replace_files([(path, b"new") for path in paths], 0o600)
    assert [(path, b"old") for path in paths] == [
        (path, path.read_bytes()) for path in sorted(tmp_path.iterdir())
    ]


def test_many_half_in_place(tmp_path: Path) -> None:
    """Where a draft cannot take its place, each file is the old one or the new one, whole."""
    good, wrong = make(tmp_path / "0", data=b"old"), make_directory(tmp_path / "1")
    with pytest.raises(BrokenSystemError, match=rf"\A{wrong} cannot be written: Is a directory"):
        replace_files([(good, b"new"), (wrong, b"new")], 0o600)
    assert [good, wrong] == sorted(tmp_path.iterdir())
    assert good.read_bytes() in {b"old", b"new"}


def test_many_durable_before_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All drafts are synced before one takes its place, and the directory once after."""
    paths = [make(tmp_path / str(number), data=b"old") for number in range(3)]
    seen: list[tuple[bool, set[bytes]]] = []

    def sync(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        seen.append((is_directory, {path.read_bytes() for path in paths}))

    monkeypatch.setattr(os, "fsync", sync)
    replace_files([(path, b"new") for path in paths], 0o600)
    assert [(False, {b"old"})] * 3 + [(True, {b"new"})] == seen


def test_drafts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drafts of a killed writer are taken away, and nothing else is."""
    path = make(tmp_path / "f")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        patch.setattr(Path, "rename", fail)
        with pytest.raises(BrokenSystemError):
            replace_file(path, b"new", 0o600)
    assert 2 == len(list(tmp_path.iterdir()))
    remove_drafts(tmp_path)
    assert [path] == list(tmp_path.iterdir())
