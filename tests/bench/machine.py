# SPDX-License-Identifier: Apache-2.0
"""What the figures were measured on, so that they can be compared or repeated."""

import os
import platform
import statistics
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

SYNCS = 50
PACKAGES = ("libpam0g", "libpam-google-authenticator", "libpam-oath")


@dataclass(frozen=True)
class Machine:
    """Facts about this machine, as text for people."""

    date: str
    cpu: str
    cores: int
    kernel: str
    system: str
    python: str
    file_system: str
    disk_sync: str
    syslog: str
    load: str
    packages: dict[str, str]


def describe_machine(directory: Path, syslog: str) -> Machine:
    """Return what is known; the directory is where the contenders keep their state."""
    return Machine(
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release(),
        system=platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        python=platform.python_version(),
        file_system=_file_system(directory),
        disk_sync=f"{_sync_milliseconds(directory):.2f} ms (median of {SYNCS} writes of 4 KiB)",
        syslog=syslog,
        load=f"{os.getloadavg()[0]:.2f} in the minute before",
        packages={name: _package_version(name) for name in PACKAGES},
    )


def _cpu_model() -> str:
    """Return the first processor's model name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _file_system(directory: Path) -> str:
    """Return the file system's type, and whether an ext4 has a journal.

    Without one, ext4 passes over every inode freed in the last minutes, one at a time, to create a
    file (recently_deleted in fs/ext4/ialloc.c). Modules that replace a file at each login then take
    up to three times as long when one benchmark follows another, as they would not in use.
    """
    found = _answer(["findmnt", "-n", "-o", "FSTYPE,SOURCE", "-T", str(directory)])
    kind, _, device = found.partition(" ")
    journals = Path("/proc/fs/jbd2").glob(f"{Path(device.strip()).resolve().name}-*")
    if kind == "ext4" and not any(journals):
        return "ext4 without a journal: a run soon after another is slower; see --state"
    return kind


def _sync_milliseconds(directory: Path) -> float:
    """Return how long a small durable write takes: it dominates every module that keeps state."""
    durations = []
    with (directory / "sync-probe").open("wb", buffering=0) as probe:
        for _ in range(SYNCS):
            began = perf_counter()
            probe.write(bytes(4096))
            os.fsync(probe.fileno())
            durations.append((perf_counter() - began) * 1000)
    return statistics.median(durations)


def _package_version(name: str) -> str:
    """Return a Debian package's version, or `unknown`."""
    return _answer(["dpkg-query", "--show", "--showformat=${Version}", name])


def _answer(command: list[str]) -> str:
    """Return a program's output, or `unknown` where it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip() or "unknown"
