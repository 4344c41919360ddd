# SPDX-License-Identifier: Apache-2.0
"""A switched file brought back to what it was; an edit that somebody made since is kept."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pam_mfa.errors import RefusedError
from pam_mfa.switching.catalog import SSHD
from pam_mfa.switching.journal import FileRecord, Record
from pam_mfa.switching.placing import (
    Placed,
    place,
    read_placed,
    remove_drafts,
    require_changeable,
)
from pam_mfa.switching.sshd import DROP_IN, is_drop_in
from pam_mfa.switching.stacks import drop_module, strip


class Forced(NamedTuple):
    """What came of one service."""

    said: list[str]
    refusal: RefusedError | None = None


def restore(root: Path, record: Record, *, is_forced: bool = False) -> list[str]:
    """Bring a service's files back; return a sentence for each that somebody has changed since.

    The later file first: what has begun a switch is undone last.

    Raises:
        RefusedError: a file cannot be changed; what was done so far is done again the next time.
    """
    said = []
    for file in reversed(record.files):
        path = root / file.path
        if path.parent.is_dir():
            remove_drafts(path.parent)
        said += _restore_file(path, file, is_forced=is_forced)
    return said


def force_out(root: Path, service: str) -> list[str]:
    """Take every line that names the module out of a service's file, whoever put it there."""
    said = []
    path = root / "etc/pam.d" / service
    now = read_placed(path)
    if now.data is not None:
        text = now.data.decode("utf-8", "surrogateescape")
        kept = drop_module(text)
        if kept != text:
            _put(path, now._replace(data=kept.encode("utf-8", "surrogateescape")))
            said.append(f"{path}: every line with pam_mfa.so is out; the rest is as it was.")
    if service == SSHD:
        drop_in = read_placed(root / DROP_IN)
        if drop_in.data is not None and is_drop_in(drop_in.data):
            _put(root / DROP_IN, Placed(None))
            said.append(f"{root / DROP_IN} is removed.")
    return said


def force_out_each(root: Path, services: Sequence[str] | None) -> Iterator[Forced]:
    """Do that for these services, or for every one of the host; a file that fails stops no other.

    Links are others' files, and are left to them. sshd comes last: its settings are of no use to
    anybody before its stack is as it was.
    """
    for directory in (root / "etc/pam.d", (root / DROP_IN).parent):
        remove_drafts(directory)
    names = sorted(path.name for path in (root / "etc/pam.d").glob("*"))
    chosen = [*(name for name in names if name != SSHD), SSHD] if services is None else services
    for name in chosen:
        path = root / "etc/pam.d" / name
        try:
            if path.is_symlink() and services is None:
                yield Forced(_tell_link(path))
            elif services is not None or name == SSHD or path.is_file():
                yield Forced(force_out(root, name))
        except RefusedError as refusal:
            yield Forced([], refusal)


def _tell_link(path: Path) -> list[str]:
    if path.exists() and b"pam_mfa.so" in path.read_bytes():
        return [f"{path} is a link, and its file names pam_mfa.so: change it there."]
    return []


def is_edited(root: Path, file: FileRecord) -> bool:
    """Whether a switched file is not what the switch has made of it."""
    return read_placed(root / file.path).data != file.after


def _restore_file(path: Path, file: FileRecord, *, is_forced: bool) -> list[str]:
    now = read_placed(path)
    if now.data == file.before.data:
        return []
    if now.data == file.after or (now.data is None and is_forced):
        _put(path, file.before)
        return []
    if now.data is None:
        return [f"{path} is gone since it was switched on, and is left so; --force brings it back."]
    kept = _without_ours(now.data, file)
    _put(path, now._replace(data=kept))
    if kept is None:
        return []
    return [f"{path} was edited since it was switched on: only pam-mfa's lines are out of it."]


def _without_ours(data: bytes, file: FileRecord) -> bytes | None:
    """Return a file that was edited without our lines; None where nothing else is left in it."""
    if file.path != DROP_IN:
        text = data.decode("utf-8", "surrogateescape")
        return strip(text).encode("utf-8", "surrogateescape")
    ours = file.after.splitlines()
    kept = [line for line in data.splitlines(keepends=True) if line.rstrip(b"\r\n") not in ours]
    return b"".join(kept) if any(line.strip() for line in kept) else None


def _put(path: Path, wanted: Placed) -> None:
    require_changeable(path)
    try:
        place(path, wanted)
    except OSError as error:
        raise RefusedError(
            f"{path} cannot be written: {error.strerror}",
            hint="Mend that, then run: pam-mfa switch off SERVICE",
        ) from error
