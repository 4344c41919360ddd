# SPDX-License-Identifier: Apache-2.0
"""Records, rotations, packing, copies, shippers that stay or are killed, in any order."""

import gzip
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_logs import make_lines
from shipped_hosts import Host, ship_killed

from pam_mfa.audit_shipping import Shipper
from pam_mfa.audit_shipping.file_sink import FileSink

LINES = make_lines(150)
STEPS = 40


class Life:
    """A host's life, as it comes."""

    def __init__(self, base: Path, seed: int) -> None:
        """Begin it."""
        self.host = Host(base)
        self.written = 0
        self._random = random.Random(seed)  # noqa: S311 - an order that can be had again
        self._staying: tuple[FileSink, Shipper] | None = None

    def live(self) -> None:
        """Do the next thing."""
        acts: list[Callable[[], None]] = [
            self.write, self.write, self.write, self.rotate, self.pack, self.copy,
            self.ship, self.ship, self.kill, self.stay, self.leave,
        ]  # fmt: skip
        self._random.choice(acts)()

    def write(self) -> None:
        """Write some records."""
        end = min(len(LINES), self.written + self._random.randrange(1, 6))
        with self.host.log.open("ab") as file:
            file.write(b"".join(LINES[self.written : end]))
        self.written = end

    def rotate(self) -> None:
        """Rotate the log as logrotate does."""
        names = sorted(self.host.log.parent.glob("audit.jsonl.[0-9]*"), key=_number, reverse=True)
        for name in names:
            following = name.name.replace(f".{_number(name)}", f".{_number(name) + 1}")
            name.rename(name.with_name(following))
        if self.host.log.exists():
            self.host.log.rename(self.host.log.with_name("audit.jsonl.1"))

    def pack(self) -> None:
        """Pack the last but one; its place on the disk may be the next file's."""
        name = self.host.log.with_name("audit.jsonl.2")
        if name.exists():
            name.with_name("audit.jsonl.2.gz").write_bytes(gzip.compress(name.read_bytes()))
            name.unlink()

    def copy(self) -> None:
        """Copy a file of the log beside it, under a name that a rotation could give."""
        name = self.host.log.with_name("audit.jsonl.1")
        if name.exists():
            shutil.copyfile(name, self.host.log.with_name("audit.jsonl-20200101"))

    def ship(self) -> None:
        """Ship, by the process that stays or by another one."""
        if self._staying is not None:
            self._staying[1].ship()
        else:
            self.host.ship()

    def kill(self) -> None:
        """Have a shipper killed somewhere."""
        if self._staying is None:
            name = self._random.choice(["write", "fdatasync", "fsync", "rename", "open"])
            is_half = self._random.random() < 0.5
            ship_killed(self.host, name, self._random.randrange(1, 8), is_half=is_half)

    def stay(self) -> None:
        """Have a shipper stay."""
        self._staying = self._staying or self.host.open()

    def leave(self) -> None:
        """Have it end."""
        if self._staying is not None:
            self._staying[0].close()
        self._staying = None


def _number(name: Path) -> int:
    return int(name.name.split(".")[2])


@pytest.mark.parametrize("seed", range(24))
def test_any_order(tmp_path: Path, seed: int) -> None:
    """In the end the target has each record once and nothing was found wrong."""
    life = Life(tmp_path, seed)
    for _ in range(STEPS):
        life.live()
    life.leave()
    life.ship()
    assert (LINES[: life.written], []) == (life.host.copy(), life.host.told)
    assert not life.host.chain(2).exists()
