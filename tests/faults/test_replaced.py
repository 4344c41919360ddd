# SPDX-License-Identifier: Apache-2.0
"""Files that are replaced while somebody is at the prompt."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from host_program import Login, Status, running
from serving import each_way, serving, wait_until_gone
from strained import Strained
from sweep import ENDS

pytest_plugins = ["strained_fixtures"]

Replace = Callable[[Path], None]


def garble(path: Path) -> None:
    """Put another file in its place, of the same owner and mode."""
    about, draft = path.stat(), path.with_name("draft")
    draft.write_bytes(bytes(range(256)) * 16)
    draft.chmod(about.st_mode & 0o7777)
    os.chown(draft, about.st_uid, about.st_gid)
    draft.replace(path)


def renew(path: Path) -> None:
    """Put a copy in its place."""
    about, draft = path.stat(), path.with_name("draft")
    shutil.copy2(path, draft)
    os.chown(draft, about.st_uid, about.st_gid)
    draft.replace(path)


def empty(path: Path) -> None:
    """Cut it to nothing."""
    os.truncate(path, 0)


FILES = {
    "policy": "etc/pam_mfa/policy.yaml",
    "devices": "var/lib/pam_mfa/devices/alice.yaml",
    "state": "var/lib/pam_mfa/state.db",
    "seal key": "var/lib/pam_mfa/seal.key",
    "log": "var/log/pam_mfa/audit.jsonl",
}
REPLACE: dict[str, Replace] = {
    "garble": garble, "renew": renew, "empty": empty, "unlink": Path.unlink,
}  # fmt: skip
# What lets nobody in any more; the rest may let the one in who is at the prompt.
REFUSED = {("devices", how) for how in ("garble", "empty", "unlink")} | {
    ("state", how) for how in ("garble", "empty", "unlink")
}


@each_way
@pytest.mark.parametrize("what", FILES)
def test_replaced_under_a_prompt(strained: Strained, way: str, what: str) -> None:
    """What is replaced under a prompt costs that login at most; put back, all goes on as before."""
    path = strained.root.path / FILES[what]
    with serving(strained.root, way):
        for how, replace in REPLACE.items():
            about, kept = path.stat(), list[bytes]()
            status = log_in_while(strained, partial(keep_and, replace, path, kept))
            assert status in ENDS
            assert status != Status.SUCCESS or (what, how) not in REFUSED
            assert (
                status != Status.SUCCESS or b"code_accepted" in strained.root.audit_log.read_bytes()
            )
            wait_until_gone(strained.root)
            if how != "renew" and what != "log":
                put_back(path, kept[0], about)
            strained.skip()
            assert strained.log_in().status == Status.SUCCESS, how
            strained.skip()
            wait_until_gone(strained.root)


def keep_and(replace: Replace, path: Path, kept: list[bytes]) -> None:
    """Keep what a file holds, and replace it.

    At the prompt, where nothing is recorded, and with all of the state in its one file: a copy that
    lacks commits of which there are records is refused, and rightly.
    """
    if path.suffix == ".db":
        with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    kept.append(path.read_bytes())
    replace(path)


def log_in_while(strained: Strained, replace: Callable[[], None]) -> int:
    """Log in, and have something replaced when the prompt is there."""
    with running(Login(strained.root, "alice")) as host:
        assert host.question() is not None
        replace()
        return host.finish([strained.code()]).status


def put_back(path: Path, content: bytes, about: os.stat_result) -> None:
    """Put a file back as it was."""
    draft = path.with_name("draft")
    draft.write_bytes(content)
    draft.chmod(about.st_mode & 0o7777)
    os.chown(draft, about.st_uid, about.st_gid)
    for leftover in path.parent.glob(f"{path.name}-*"):  # the log of changes to another database
        leftover.unlink()
    draft.replace(path)
