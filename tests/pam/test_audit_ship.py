# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa audit ship`` and ``verify --fleet`` as installed: records of real verifiers."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_records import read_all, require_chain
from installed import PATIENCE, REPOSITORY, DataRoot
from login_crowd import Login, answer, ask, connect, enable_everybody

ROTATION = REPOSITORY / "packaging/logrotate.d/pam-mfa"
LOGROTATE = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin")


@pytest.fixture
def target(root: DataRoot) -> Path:
    """A directory that the verifier's user may write to."""
    path = root.path / "target"
    path.mkdir(mode=0o750)
    shutil.chown(path, "pam-mfa", "pam-mfa")
    return path


def chain_of(target: Path) -> Path:
    """Return the file of this machine's chain."""
    return target / f"{os.uname().nodename}.jsonl"


@contextlib.contextmanager
def following(root: DataRoot, target: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a shipper that follows the log, until the block is over or it was killed."""
    process = subprocess.Popen(
        [root.prefix / "bin/pam-mfa", "--root", root.path, "audit", "ship", "--follow",
         "--to", target],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        _, told = process.communicate(timeout=PATIENCE)
    assert (told, process.returncode in {0, -signal.SIGKILL}) == (b"", True)


def wait_for_growth(path: Path, size: int) -> None:
    """Wait until a file is larger than that."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or path.stat().st_size <= size:
        assert time.monotonic() < deadline, "nothing is shipped"
        time.sleep(0.02)


def rotate(root: DataRoot) -> None:
    """Rotate a root's log by the shipped file."""
    assert LOGROTATE, "logrotate is not installed"
    directory = root.path / "rotation"
    directory.mkdir(exist_ok=True)
    text = ROTATION.read_text("utf-8").replace("/var/log/pam_mfa", str(root.audit_log.parent))
    (directory / "conf").write_text(text)
    subprocess.run(
        [LOGROTATE, "--force", "--state", directory / "state", directory / "conf"],
        check=True, timeout=60,
    )  # fmt: skip


def test_shipped_and_verified(root: DataRoot, target: Path) -> None:
    """What verifiers write is shipped by root's command as their user, and verified as it is."""
    root.enroll("alice")
    done = root.command("audit", "ship", "--to", str(target))
    assert done.stderr == ""
    assert chain_of(target).read_bytes() == root.audit_log.read_bytes()
    owners = {each.owner() for each in target.iterdir()}
    assert owners == {"pam-mfa"}
    root.enroll("bob")
    root.command("audit", "ship", "--to", str(target))
    require_chain(chain_of(target).read_bytes().splitlines(keepends=True))
    checked = root.command("audit", "verify", "--fleet", str(target), "--json")
    (row,) = json.loads(checked.stdout)
    assert (row["sound"], row["findings"], row["chains"][0]["anchor"] is None) == (True, [], False)
    assert row["chains"][0]["proven_sequence"] > 1


def test_edited_at_the_target(root: DataRoot, target: Path) -> None:
    """A user's name that was changed at the target is found, with its line, and status 1."""
    root.enroll("alice")
    root.enroll("bob")
    root.command("audit", "ship", "--to", str(target))
    text = chain_of(target).read_bytes()
    chain_of(target).write_bytes(text.replace(b'"user":"alice"', b'"user":"mallo"'))
    checked = root.command("audit", "verify", "--fleet", str(target), check=False)
    assert checked.returncode == 1
    assert "not_intact" in checked.stdout
    assert f"{chain_of(target)}:" in checked.stdout


def test_key_of_the_host(root: DataRoot, target: Path) -> None:
    """The key that the host keeps is the one that its copy is signed by."""
    root.enroll("alice")
    root.command("audit", "ship", "--to", str(target))
    keys = root.path / "keys"
    keys.mkdir()
    shutil.copy(root.library / "audit.pub", keys / f"{os.uname().nodename}.pub")
    options = ("--fleet", str(target), "--keys", str(keys))
    assert "by the key named for it" in root.command("audit", "verify", *options).stdout


def test_two_roots_of_one_name(prefix: Path, root: DataRoot, target: Path) -> None:
    """Two hosts that are called the same are not mixed: the second is refused, and found."""
    root.enroll("alice")
    root.command("audit", "ship", "--to", str(target))
    other = DataRoot(prefix)
    try:
        other.enroll("bob")
        refused = other.command("audit", "ship", "--to", str(target), check=False)
        assert refused.returncode == 1
        assert "another machine's name" in refused.stderr
        other.command("audit", "ship", "--to", str(target), "--name", "web2")
    finally:
        other.remove()
    assert chain_of(target).read_bytes() == root.audit_log.read_bytes()
    checked = root.command("audit", "verify", "--fleet", str(target), check=False)
    assert checked.returncode == 1
    assert "a second machine of this name" in checked.stdout
    assert "web2: intact" in checked.stdout


def test_as_somebody(root: DataRoot, target: Path) -> None:
    """Who is neither root nor the verifier's user may not ship."""
    done = subprocess.run(
        [root.prefix / "bin/pam-mfa", "--root", root.path, "audit", "ship", "--to", target],
        user=65_500, group=65_500, extra_groups=[], capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "only root and the user pam-mfa" in done.stderr


def test_killed_while_everybody_logs_in(root: DataRoot, target: Path) -> None:
    """Shippers that are killed under load and rotations, one after the other, lose nothing."""
    people, is_over = enable_everybody(root), threading.Event()

    def log_in(number: int) -> None:
        count = 0
        while not is_over.is_set():
            count += 1
            login = Login(f"{people[number].name}-{count}", people[number])
            with connect(root) as connection:
                if ask(connection, login):
                    answer(connection, login)

    with root.daemon():
        threads = [threading.Thread(target=log_in, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            size = 0
            for round_ in range(4):
                with following(root, target) as process:
                    wait_for_growth(chain_of(target), size)
                    if round_ % 2:
                        rotate(root)
                    size = chain_of(target).stat().st_size
                    wait_for_growth(chain_of(target), size)
                    process.kill()
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
    done = root.command("audit", "ship", "--to", str(target))
    assert done.stderr == ""
    lines = chain_of(target).read_bytes().splitlines(keepends=True)
    assert lines == read_all(root.audit_log.parent)
    require_chain(lines)
    root.command("audit", "verify", "--fleet", str(target))
