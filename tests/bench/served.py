# SPDX-License-Identifier: Apache-2.0
"""One data root of an installed pam-mfa with its daemon, as the benchmark of limits asks it.

Owns how the daemon's processes are found and what the kernel says of them.
"""

import hashlib
import re
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from contender import BenchmarkError, User, totp
from crowd import Crowd
from one_login import Attempt, Libpam
from product import START_UP_LIMIT, Installation, Product, is_listening

_QUIET = 0.2  # seconds without a record: nothing is signed or told any more
_SERVICE = "bench"


class Served:
    """One data root with a daemon, and a PAM service for it."""

    def __init__(self, prefix: Path, directory: Path, users: Sequence[User]) -> None:
        """Provision the users and start the daemon."""
        directory.mkdir(mode=0o755)
        self.root = directory / "root"
        self.users = list(users)
        self._fresh = iter(users)
        self._product = Product(Installation(prefix, directory), self.root, daemon=True)
        self.services = directory / "pam.d"
        self.services.mkdir()
        line = self._product.prepare(users)
        (self.services / _SERVICE).write_text(line, "ascii")

    def close(self) -> None:
        """Stop the daemon."""
        self._product.close()

    def next_user(self) -> User:
        """Return a user who has not logged in yet: a code is good once.

        Raises:
            BenchmarkError: all have.
        """
        user = next(self._fresh, None)
        if user is None:
            raise BenchmarkError("there are too few users for all logins")
        return user

    def log_in(self) -> float:
        """Log a user in; return the milliseconds.

        Raises:
            BenchmarkError: the right code was refused.
        """
        user = self.next_user()
        attempt = Libpam(self.services).log_in(_SERVICE, user.name, totp(user, time.time()))
        if not attempt.accepted:
            raise BenchmarkError(f"a right code was refused: {attempt.status}")
        return attempt.seconds * 1000

    def median(self, count: int) -> float:
        """Log so many users in, one after the other; return the median of the milliseconds."""
        return statistics.median(self.log_in() for _ in range(count))

    def log_in_together(self, count: int) -> list[Attempt]:
        """Log so many users in at the same time, each from a process of its own."""
        users = [self.next_user() for _ in range(count)]
        contenders: Mapping[str, Product] = {_SERVICE: self._product}
        with Crowd(count, contenders, self.services) as crowd:
            return crowd.log_in(_SERVICE, users)

    def wait_until_quiet(self) -> None:
        """Wait until what a daemon does after verdicts is done."""
        log, size = self.root / "var/log/pam_mfa/audit.jsonl", -1
        while log.stat().st_size != size:
            size = log.stat().st_size
            time.sleep(_QUIET)

    @property
    def processes(self) -> list[int]:
        """The process ids of the daemon, and of its companion for callers that are not root.

        Raises:
            BenchmarkError: it is gone.
        """
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if bytes(self.root) in words and b"python" in words[0]:
                found.append((b"--serve" in words, int(process.name)))
        if all(is_companion for is_companion, _ in found):
            raise BenchmarkError("the daemon is gone")
        return [number for _, number in sorted(found)]

    def lengthen_log(self, size: int) -> int:
        """Have the audit log be this long by records that chain; return how many there are then.

        Each is the log's last login again, with a place in the chain of its own; the state's head
        is moved behind the last one.
        """
        self.wait_until_quiet()
        log = self.root / "var/log/pam_mfa/audit.jsonl"
        text = next(
            line for line in reversed(log.read_bytes().splitlines()) if b'"VerifyMfa"' in line
        )
        last = log.read_bytes().splitlines()[-1]
        sequence, digest = append_chain(log, text, last, size)
        with sqlite3.connect(self.root / "var/lib/pam_mfa/state.db", timeout=10) as state:
            values = (sequence, digest, sequence)
            state.execute("UPDATE audit_head SET sequence = ?, hash = ?, signed = ?", values)
            state.execute("UPDATE outbox SET line = x''")
        state.close()
        return sequence


def append_chain(log: Path, text: bytes, last: bytes, size: int) -> tuple[int, str]:
    """Append records like one until a log has a size; return the last one's sequence and hash."""
    parts = re.fullmatch(rb'(.*"previous":")[0-9a-f]{64}(".*"sequence":)\d+(,.*)', text)
    found = re.search(rb'"sequence":(\d+)', last)
    if parts is None or found is None:
        raise BenchmarkError("the log's records are not spelled as expected")
    before, middle, behind = parts[1], parts[2], parts[3]
    sequence, digest = int(found[1]), hashlib.sha256(last).hexdigest()
    with log.open("ab", buffering=1 << 22) as file:
        left = size - log.stat().st_size
        while left > 0:
            sequence += 1
            line = b"%s%s%s%d%s" % (before, digest.encode("ascii"), middle, sequence, behind)
            digest = hashlib.sha256(line).hexdigest()
            left -= file.write(line + b"\n")
    return sequence, digest


def alternate(one: Served, other: Served, turns: int) -> tuple[float, float]:
    """Return the medians of logins that alternate, so that a slower machine is so for both."""
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        took[0].append(one.log_in())
        took[1].append(other.log_in())
    return statistics.median(took[0]), statistics.median(took[1])


def status_of(pid: int, key: str) -> int:
    """Return a number of /proc/PID/status; 0 where there is none."""
    text = Path(f"/proc/{pid}/status").read_text("ascii")
    found = re.search(rf"^{key}:\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def count_switches(pid: int) -> int:
    """Return how often the threads of a process were let run."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        text = (task / "status").read_text("ascii")
        total += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", text)))
    return total


def modules_loaded(prefix: Path, served: Served, names: Sequence[str]) -> list[str]:
    """Return which of these modules a daemon loads until it has let a user in.

    The daemon is another one, on the same data, whose interpreter writes its imports down.
    """
    served.close()
    command = ["/usr/bin/python3", "-X", "importtime", "-IS", str(prefix / "bin/pam-mfad")]
    trace = served.root.with_suffix(".imports")
    with (
        trace.open("wb") as output,
        subprocess.Popen(
            [*command, "--root", str(served.root)], stdout=output, stderr=output
        ) as daemon,
    ):
        try:
            _wait_for(served)
            served.log_in()
        finally:
            daemon.terminate()
            daemon.wait(timeout=30)
    found = set(re.findall(r"\| +([\w.]+)$", trace.read_text("utf-8", "replace"), re.MULTILINE))
    if "pam_mfa.verifier.server" not in found:
        raise BenchmarkError("the daemon did not write its imports down")
    return sorted({name.partition(".")[0] for name in found} & set(names))


def _wait_for(served: Served) -> None:
    """Wait until a daemon listens."""
    deadline = time.monotonic() + START_UP_LIMIT
    while not is_listening(served.root / "run/pam_mfa/verify.sock"):
        if time.monotonic() > deadline:
            raise BenchmarkError("the daemon does not start")
        time.sleep(0.05)
