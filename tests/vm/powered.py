# SPDX-License-Identifier: Apache-2.0
"""The product on a disk that loses what was not flushed, in a guest whose power is cut.

The store under test is a disk of its own, with a file system of its own; the guest's other disks
are thrown away at each cut. What was told to whoever logged in is written behind that file system,
into the same history of writes: so for every moment of it is known what had been told by then.
"""

import contextlib
import copy
import json
import pwd
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

from host_program import compile_host
from installed import DataRoot

from vm.disk_server import DiskServer
from vm.guest import Guest
from vm.host_commands import run_on_host
from vm.lossy_disk import LossyDisk
from vm.product import PREFIX, SOCKETS
from vm.qemu import Start

USERS = ("user0", "user1", "user2", "user3")
SERVICES = ("by-daemon", "on-demand")
FILE_SYSTEM = 48 << 20  # bytes, and behind them the notes
_NOTES = 1 << 20
_STORE = "/srv/store"
_LOGINS = Path(__file__).resolve().parent / "inside/logins.py"
_CODES = 3000  # of each user
_DIGITS = 8  # so that no code in the window happens to be like one before
_PATIENCE = 120.0  # seconds
_POLICY = """\
version: 1
hotp: {look_ahead: 20}
lockout: {failures: 1000, within: 5m, for: 1s}
audit: {checkpoint_every: 40}
"""
# What README.md's "Protect a service" does, with the store on the disk under test.
_SET_UP = f"""
set -eu
mkdir -p {PREFIX} {_STORE}
mount -t ext4 -o ro /dev/vdc {PREFIX}
mount -t ext4 /dev/vdb {_STORE}
echo "pam-mfa:x:$2:" >>/etc/group
echo "pam-mfa:x:$1:$2::/nonexistent:/usr/sbin/nologin" >>/etc/passwd
for directory in etc/pam_mfa var/lib/pam_mfa var/log/pam_mfa; do
  mkdir -p /$directory
  mount --bind {_STORE}/$directory /$directory
done
cp {PREFIX}/share/systemd/pam-mfad* /etc/systemd/system/
systemctl daemon-reload
systemctl start {" ".join(SOCKETS)}
"""


class Promises(NamedTuple):
    """What had been told by some moment, and what a store must hold to from there on."""

    terminals: frozenset[str] = frozenset()  # of the logins that were told success
    last: tuple[tuple[str, int], ...] = ()  # users, and their last codes told to be accepted
    spent: tuple[tuple[str, int], ...] = ()  # users, and their last codes that may be used
    papers: frozenset[str] = frozenset()  # users whose device was told to be enabled


class Powered:
    """A machine that is switched on, cut off, and switched on again."""

    def __init__(self, prefix: Path, made: Path) -> None:
        """Enable everybody, on a new disk.

        Args:
            prefix: an installed pam-mfa.
            made: another, for the prefix of guests.
        """
        self.codes = {user: _codes(user) for user in USERS}
        self.disk = LossyDisk(_make_store(prefix))
        self._made = made
        self._kept = Promises()  # what was told before this disk's history

    @contextlib.contextmanager
    def on(self) -> Iterator["Period"]:
        """Switch the machine on, with logins going on; at the end of the block the power goes."""
        with tempfile.TemporaryDirectory(prefix="mfa-power-") as scratch:
            path, product = Path(scratch, "disk.sock"), Path(scratch, "product")
            _make_file_system(product, 100 << 20, self._made, "^has_journal")
            store = f"file.driver=nbd,file.server.type=unix,file.server.path={path}"
            with (
                DiskServer(self.disk, path),
                Guest(start=Start(drives=(store, f"readonly=on,file={product}"))) as guest,
            ):
                ids = pwd.getpwnam("pam-mfa")
                guest.run(["sh", "-c", _SET_UP, "sh", str(ids.pw_uid), str(ids.pw_gid)])
                period = Period(guest, self._plan())
                try:
                    yield period
                finally:
                    guest.kill()
                    period.end()

    def after_cut(self, length: int, dice: random.Random) -> Self:
        """Return the machine as it is where the power went when the history had this length."""
        left = copy.copy(self)
        left._kept = self.promises(length)  # noqa: SLF001 - its own kind
        left.disk = LossyDisk(self.disk.after_cut(length, dice))
        return left

    def promises(self, length: int = 0) -> Promises:
        """Return what had been told when the disk's history had this length."""
        terminals, papers = set(self._kept.terminals), set(self._kept.papers)
        last, spent = dict(self._kept.last), dict(self._kept.spent)
        for told in self._notes(length):
            if "paper" in told:
                papers.add(told["paper"])
            elif "spent" in told:
                spent[told["user"]] = told["spent"]
            else:
                terminals.add(told["terminal"])
                last[told["user"]] = spent[told["user"]] = told["number"]
        return Promises(
            frozenset(terminals), tuple(last.items()), tuple(spent.items()), frozenset(papers)
        )

    def _notes(self, length: int) -> Iterator[dict[str, Any]]:
        for offset, data in self.disk.history[:length]:
            if offset >= FILE_SYSTEM:
                yield json.loads(data)

    def _plan(self) -> dict[str, Any]:
        """Return what ``inside/logins.py`` needs to know."""
        last, spent = dict(self._kept.last), dict(self._kept.spent)
        people = {
            user: {
                "service": SERVICES[user == USERS[-1]],
                "codes": self.codes[user],
                "used": last.get(user),
                # The code between the two may have been used, and nobody told.
                "next": spent[user] + 2 if user in spent else 0,
            }
            for user in USERS
        }
        return {
            "device": "/dev/vdb",
            "offset": FILE_SYSTEM,
            "host": f"{_STORE}/host",
            "services": f"{_STORE}/pam.d",
            "command": [f"{PREFIX}/bin/pam-mfa"],
            "people": people,
            "papers": len(self._kept.papers) * 2,  # one of each two may not have been told
        }


class Period:
    """A time in which the machine is on and people log in."""

    def __init__(self, guest: Guest, plan: dict[str, Any]) -> None:
        """Let people come."""
        self._process = guest.start(_LOGINS)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(plan).encode() + b"\n")
        self._process.stdin.flush()

    def await_told(self, count: int) -> None:
        """Wait until this many more things were told.

        Raises:
            AssertionError: somebody was refused who should not be, or the other way round.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + _PATIENCE
        for _ in range(count):
            line = json.loads(self._process.stdout.readline())
            assert "fault" not in line, line
            assert time.monotonic() < deadline, "logins take too long"

    def end(self) -> None:
        """Collect what is left of it."""
        output, _ = self._process.communicate(timeout=_PATIENCE)
        faults = [line for line in output.splitlines() if b'"fault"' in line]
        assert faults == []


def _codes(user: str) -> list[str]:
    """Return the codes of a user's token, by oathtool."""
    done = subprocess.run(
        ["oathtool", "--hotp", f"--digits={_DIGITS}", f"--window={_CODES - 1}", _seed(user)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def _seed(user: str) -> str:
    return user.encode().hex().ljust(40, "5")


def _make_store(prefix: Path) -> bytes:
    """Enable everybody, and return a disk with that store, and room for notes."""
    root = DataRoot(prefix)
    try:
        root.policy.write_text(_POLICY)
        table = root.path / "users.oath"
        table.write_text("".join(f"HOTP/E/{_DIGITS} {user} - {_seed(user)} 0\n" for user in USERS))
        table.chmod(0o600)
        root.command("import", "oath", str(table))
        compile_host(root.path / "host")
        module = f"auth required {PREFIX}/lib/security/pam_mfa.so"
        for service, arguments in zip(SERVICES, ("", f"root={_STORE}"), strict=True):
            (root.services / service).write_text(f"{module} {arguments}\n")
        with tempfile.TemporaryDirectory(prefix="mfa-power-") as scratch:
            image = Path(scratch, "store")
            _make_file_system(image, FILE_SYSTEM, root.path, "has_journal")
            return image.read_bytes() + bytes(_NOTES)
    finally:
        root.remove()


def _make_file_system(image: Path, size: int, folder: Path, *features: str) -> None:
    with image.open("wb") as disk:
        disk.truncate(size)
    options = ["-t", "ext4", "-O", ",".join(features), "-E", "lazy_itable_init=0"]
    run_on_host(["mke2fs", "-q", *options, "-d", folder, image], timeout=120)
