# SPDX-License-Identifier: Apache-2.0
"""How fast the audit log is verified and searched.

Run: `python tests/bench/audit.py [--records N] [--days D] [--state DIR]`, with the packages of
packaging/requirements.txt at hand. Makes a chained and signed log of so many records, of 200 users
over so many days, in a folder on the disk, and runs the command line on it as a person would:
`audit verify`, `audit show --user U --since 1h` and others, best of three. The log is in the page
cache by then. Figures are printed and never judged; the exit status is 2 where the benchmark could
not run.
"""

import argparse
import base64
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from contender import BenchmarkError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from machine import describe_machine

STATE_PARENT = Path("/var/tmp")  # noqa: S108  # a disk, as in real use; /tmp may be memory
CHECKPOINT_EVERY = 1000
USERS = 200
ROUNDS = 3
START_UP = "import sys; sys.path.insert(0, {!r}); from pam_mfa.cli.__main__ import main; main()"


@dataclass(frozen=True)
class Options:
    """The command line."""

    records: int
    days: int
    state: Path


@dataclass(frozen=True)
class Figures:
    """What a command took: the best of all rounds."""

    seconds: float
    processor: float  # seconds; on a machine that others use, what the command itself takes
    memory: float  # MiB, the most
    lines: int

    def __str__(self) -> str:
        """Return them as a line's end."""
        return f"{self.seconds:6.2f} s, {self.processor:6.2f} s of CPU, {self.memory:.0f} MiB"


def parse_options(arguments: Sequence[str]) -> Options:
    """Return the command line's options; argparse exits on wrong usage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--records", type=int, default=5_000_000, help="records in the log")
    parser.add_argument("--days", type=int, default=365, help="days that it is of")
    parser.add_argument("--state", type=Path, default=STATE_PARENT, help="a folder on the disk")
    return Options(**vars(parser.parse_args(arguments)))


def spell(record: dict[str, object]) -> bytes:
    """Return a record's canonical text."""
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode("ascii")


def make_records(count: int, days: int) -> Iterator[bytes]:
    """Go through the lines of a log that ends now, without newlines."""
    chance = random.Random(7)  # noqa: S311 - nothing secret
    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes_raw()
    now, step = datetime.now(UTC) - timedelta(days=days), timedelta(days=days) / count
    previous = "0" * 64
    for sequence in range(1, count + 1):
        now += step
        user = f"user{chance.randrange(USERS)}"
        record: dict[str, object] = {
            "version": 1, "sequence": sequence, "previous": previous,
            "time": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "event_id": f"{sequence:016x}",
            "event_name": "VerifyMfa", "outcome": "success", "reason": "code_accepted",
            "host": "host.example", "process": {"pid": 4321, "program": "pam-mfad"},
        }  # fmt: skip
        if sequence % CHECKPOINT_EVERY == 1:
            record |= {
                "event_name": "Checkpoint", "reason": "interval" if sequence > 1 else "start",
                "public_key_id": hashlib.sha256(raw).hexdigest()[:16],
                "public_key": base64.b64encode(raw).decode("ascii"),
            }  # fmt: skip
            record["signature"] = base64.b64encode(key.sign(spell(record))).decode("ascii")
        else:
            record |= {
                "user": user, "service": "sshd", "phase": "auth", "tty": "ssh",
                "rhost": "192.0.2.7", "source_address": "192.0.2.7", "mode": "enforce",
                "device": {"serial_number": f"virtual/{user}/phone", "type": "virtual",
                           "name": "phone"},
                "caller_uid": 0, "caller_pid": 4321, "duration_ms": 2345,
            }  # fmt: skip
        line = spell(record)
        previous = hashlib.sha256(line).hexdigest()
        yield line


def measure(root: Path, *arguments: str) -> Figures:
    """Run a command several times; return its figures.

    Raises:
        BenchmarkError: it failed.
    """
    program = START_UP.format(str(Path(__file__).resolve().parent.parent.parent))
    command = [sys.executable, "-c", program, "--root", str(root), "audit", *arguments]
    seconds, processor, memory = [], [], 0.0
    output = root / "output"
    for _ in range(ROUNDS):
        with output.open("wb") as file:
            began = time.perf_counter()
            process = subprocess.Popen(command, stdout=file)
            _, status, usage = os.wait4(process.pid, 0)
            seconds.append(time.perf_counter() - began)
        processor.append(usage.ru_utime + usage.ru_stime)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise BenchmarkError(f"audit {' '.join(arguments)} ended with {process.returncode}")
        memory = max(memory, usage.ru_maxrss / 1024)
    with output.open("rb") as file:  # a child's peak begins with its parent's: nothing large here
        return Figures(min(seconds), min(processor), memory, sum(1 for _ in file))


def run(options: Options) -> int:
    """Measure, print, and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="audit-bench-", dir=options.state) as temporary:
        root = Path(temporary)
        root.chmod(0o755)
        log = root / "var/log/pam_mfa/audit.jsonl"
        log.parent.mkdir(parents=True)
        machine = describe_machine(root, "not used")
        with log.open("wb") as file:
            file.writelines(line + b"\n" for line in make_records(options.records, options.days))
        sys.stdout.write(
            f"{machine.date}, {machine.cpu}, {machine.cores} cores, {machine.system}, Python "
            f"{machine.python}, {machine.file_system}, load {machine.load}\n"
            f"{options.records} records of {options.days} days, {log.stat().st_size / 1e9:.2f} GB\n"
        )
        tell_commands(root, options.records)
    return 0


def tell_commands(root: Path, count: int) -> None:
    """Print a line for each command."""
    found = measure(root, "verify")
    speed = f"{count / found.seconds:,.0f} records/s, {count / found.processor:,.0f} by CPU"
    sys.stdout.write(f"{'verify':44} {found}, {speed}\n")
    for arguments in (
        ("show", "--user", "user7", "--since", "1h"),
        ("show", "--user", "user7", "--since", "1d"),
        ("show", "--since", "3d", "--until", "2d", "--json"),
        ("show", "--limit", "20"),
        ("show", "--device", "virtual/user7/phone", "--json"),
    ):
        found = measure(root, *arguments)
        sys.stdout.write(f"{' '.join(arguments):44} {found}, {found.lines:,} lines\n")
        sys.stdout.flush()


def main() -> int:
    """Run, with a plain sentence where it cannot."""
    try:
        return run(parse_options(sys.argv[1:]))
    except BenchmarkError as error:
        sys.stderr.write(f"audit: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
