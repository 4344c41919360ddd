# SPDX-License-Identifier: Apache-2.0
"""What a verifier that a login started has given up, seen from outside and tried from inside."""

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from host_program import Login, exact_service, running
from installed import PATIENCE, REPOSITORY, DataRoot
from serving import ON_DEMAND, each_way, serving, verifiers_on_demand

PROBE = """
import os, sys
from pathlib import Path
from pam_mfa.store.layout import Layout, drop_privileges
from pam_mfa.verifier.confinement import hide_memory, keep_to_store
root, what = Path(sys.argv[1]), sys.argv[2]
os.chdir("/")
drop_privileges()
hide_memory()
keep_to_store(Layout(root))
try:
    exec(what, {"os": os, "root": root, "Path": Path})
except PermissionError:
    print("refused")
else:
    print("done")
"""
WRITE_PROGRAM = """path = root / 'var/lib/pam_mfa/x'
path.write_text('#!/bin/true')
path.chmod(0o700)"""
# What a verifier on demand tries, and whether the kernel lets it.
TRIED = {
    "a file of the store": ("(root / 'var/lib/pam_mfa/new').write_text('')", "done"),
    "a record": ("(root / 'var/log/pam_mfa/new').write_text('')", "done"),
    "a name that others may write to": ("(root / 'open/new').write_text('')", "refused"),
    "its user's file elsewhere": ("(root / 'own').write_text('')", "refused"),
    "a link elsewhere": ("os.symlink('x', root / 'open/link')", "refused"),
    "a device": ("Path('/dev/null').write_text('')", "done"),
    "reading elsewhere": ("Path('/etc/passwd').read_text()", "done"),
    "a program of the system": ("os.posix_spawn('/bin/true', ['true'], {})", "done"),
    "a program that it wrote": (f"{WRITE_PROGRAM}\nos.posix_spawn(path, ['x'], {{}})", "refused"),
}


@contextmanager
def verifiers(root: DataRoot, way: str) -> Iterator[list[Path]]:
    """Have a login wait for its code; give the /proc directories of who verifies it."""
    login = Login(root, "alice", exact_service(root))
    with serving(root, way), running(login) as host:
        assert host.question() is not None
        found = verifiers_on_demand(root) if way == ON_DEMAND else daemons(root)
        assert len(found) == (1 if way == ON_DEMAND else 2)
        yield found


def daemons(root: DataRoot) -> list[Path]:
    """Return the /proc directories of a root's daemon and of its second process."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(root.path) in words and any(one.endswith(b"/pam-mfad") for one in words):
            found.append(process)
    return found


def status_of(process: Path) -> dict[str, list[str]]:
    """Return the fields of a process's status."""
    lines = (process / "status").read_text("ascii").splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


@each_way
def test_rights(root: DataRoot, way: str) -> None:
    """No root, no capability, no group but its own, and on demand nothing that makes new rights."""
    with verifiers(root, way) as found:
        for process in found:
            fields, user = status_of(process), pwd.getpwnam("pam-mfa")
            assert [str(user.pw_uid)] * 4 == fields["Uid"]
            assert [str(user.pw_gid)] * 4 == fields["Gid"]
            assert fields["Groups"] == []
            held = {int(fields[name][0], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")}
            assert held == {0}
            assert [str(int(way == ON_DEMAND))] == fields["NoNewPrivs"]  # else the unit's


@each_way
def test_memory(root: DataRoot, way: str) -> None:
    """Another process of the verifier's user can neither read its memory nor trace it."""
    with verifiers(root, way) as found:
        for process in found:
            await_hidden(process)
            for name in ("mem", "maps", "environ"):
                done = subprocess.run(
                    ["setpriv", "--reuid=pam-mfa", "--regid=pam-mfa", "--clear-groups",
                     "head", "-c1", process / name],
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                assert (done.returncode, "Permission denied" in done.stderr) == (1, True), name


def await_hidden(process: Path) -> None:
    """Wait until a process that has just started has come so far: root then owns what /proc has."""
    deadline = time.monotonic() + PATIENCE
    while (process / "mem").stat().st_uid != 0 and time.monotonic() < deadline:
        time.sleep(0.02)


@each_way
def test_no_core(root: DataRoot, way: str) -> None:
    """A verifier that crashes leaves its memory nowhere, by a limit that pipes heed, too."""
    with verifiers(root, way) as found:
        for process in found:
            (line,) = [
                line
                for line in (process / "limits").read_text().splitlines()
                if line.startswith("Max core file size")
            ]
            assert line.split()[4:6] == ["1", "1"]


def test_descriptors(root: DataRoot) -> None:
    """A verifier on demand holds the module's socket and files of its own, none of the host's."""
    its_own = ("socket:", "/dev/null", str(root.path))
    with verifiers(root, ON_DEMAND) as (process,):
        held = [str(one.readlink()) for one in (process / "fd").iterdir()]
        assert [one for one in held if not one.startswith(its_own)] == []


@pytest.mark.parametrize("what", TRIED)
def test_reach(root: DataRoot, what: str) -> None:
    """A verifier on demand writes to its store and devices, and executes nothing that it wrote."""
    for name, owner in (("own", "pam-mfa"), ("open", "root")):
        path = root.path / name
        path.mkdir() if name == "open" else path.touch()
        os.chown(path, pwd.getpwnam(owner).pw_uid, 0)
    (root.path / "open").chmod(0o777)
    statement, expected = TRIED[what]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, root.path, statement],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert f"{expected}\n" == done.stdout
