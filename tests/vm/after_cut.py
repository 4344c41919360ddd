# SPDX-License-Identifier: Apache-2.0
"""What a power cut may have done to a store: nothing that anybody was told.

The disk is made whole as a boot does it (e2fsck replays the journal), and the store that is in it
is asked by an installed pam-mfa of this machine.
"""

import collections
import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from audit_records import read_all, require_chain
from host_program import Status, attempt
from installed import DataRoot
from serving import wait_until_gone

from vm.host_commands import run_on_host
from vm.powered import FILE_SYSTEM, USERS, Powered, Promises

_WHOLE, _MENDED = 0, 1  # what e2fsck ends with


class CutRoot(DataRoot):
    """A data root that a power cut has left."""

    def __init__(self, prefix: Path, path: Path) -> None:
        """Take a directory as it is."""
        self.prefix = prefix
        self.holds_schema = True
        self.path = path
        self.policy = path / "etc/pam_mfa/policy.yaml"
        self.services = path / "pam.d"
        self.library = path / "var/lib/pam_mfa"
        self.audit_log = path / "var/log/pam_mfa/audit.jsonl"


def require_kept(prefix: Path, machine: Powered) -> Promises:
    """See that a machine's disk has what was told before the cut, and that the next logins work.

    The machine itself stays as it is: what is looked at is a copy. Returns what was told.

    Raises:
        AssertionError: it has not.
    """
    promises = machine.promises()
    last, spent = dict(promises.last), dict(promises.spent)
    with _left_by(prefix, machine.disk.read(0, FILE_SYSTEM)) as root:
        for user in USERS:
            used, codes = last.get(user), machine.codes[user]
            # The next code may have been used, and nobody told.
            fresh = codes[spent.get(user, -1) + 2]
            if used is None:
                assert attempt(root, user, fresh).status == Status.SUCCESS
                continue
            again = attempt(root, user, codes[used], fresh)
            assert (again.status, len(again.prompts)) == (Status.SUCCESS, 2), (user, used)
        wait_until_gone(root)
        _require_records(root, promises)
        verified = root.command("audit", "verify", check=False)
        assert verified.returncode == 0, f"{verified.stdout}{verified.stderr}"
        for paper in promises.papers:
            assert len(json.loads(root.command("list", paper, "--json").stdout)) > 0, paper
    return promises


def _require_records(root: DataRoot, promises: Promises) -> None:
    lines = read_all(root.audit_log.parent)
    # What the cut left of a line that was not flushed stays where it is; MendLog tells of it.
    whole = [line for line in lines if line.startswith(b"{") and line.endswith(b"}\n")]
    records = require_chain(whole)
    names = [record["event_name"] for record in records]
    assert "ResumeLog" not in names, "log and state were torn apart"
    successes = collections.Counter(
        record["tty"]
        for record in records
        if (record["event_name"], record["outcome"]) == ("VerifyMfa", "success")
        and record.get("tty")
    )
    assert [one for one, count in successes.items() if count != 1] == [], "a login twice"
    assert promises.terminals - set(successes) == set(), "told, and not on record"


@contextlib.contextmanager
def _left_by(prefix: Path, disk: bytes) -> Iterator[CutRoot]:
    """Make the file system whole, and give what is in it."""
    with tempfile.TemporaryDirectory(prefix="mfa-power-", dir="/var/tmp") as scratch:
        Path(scratch).chmod(0o755)
        image, folder = Path(scratch, "disk"), Path(scratch, "root")
        image.write_bytes(disk)
        mended = subprocess.run(
            ["e2fsck", "-p", image], capture_output=True, text=True, check=False, timeout=60
        )
        assert mended.returncode in (_WHOLE, _MENDED), mended.stdout
        run_on_host(["e2fsck", "-f", "-n", image], timeout=60)
        folder.mkdir(mode=0o755)
        for part in ("etc", "var", "pam.d"):
            run_on_host(["debugfs", "-R", f"rdump /{part} {folder}", image], timeout=60)
        root = CutRoot(prefix, folder)
        yield root
