# SPDX-License-Identifier: Apache-2.0
"""Inside the guest: logins through PAM at full speed, until the power goes.

The first line on standard input says who logs in how often, see ``powered.py``. Whatever is told
to somebody (a success, an end of a command without an error) is written past all caches to the end
of the disk under test, so that it has its place among the disk's writes. Ends with its input.
"""

import json
import mmap
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

BLOCK = 4096  # bytes of a note; as many notes as fit are kept, the history has them all
NOTES = 16
ECHOING = 2  # styles of PAM messages that want an answer are up to this one
SUCCESS, UNAVAILABLE = "0", "9"  # PAM's
LOG = Path("/var/log/pam_mfa/audit.jsonl")
ROTATE_EVERY = 2.5  # seconds


def say(what: dict[str, Any]) -> None:
    """Tell whoever waits outside."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Notes:
    """Where it is written down what was told."""

    def __init__(self, device: str, offset: int) -> None:
        """Take the place behind the file system."""
        # Direct: the note is a write of its own, after all that was written before it was told.
        self._descriptor = os.open(device, os.O_WRONLY | os.O_DIRECT)
        self._buffer = mmap.mmap(-1, BLOCK)  # aligned, as direct writes have to be
        self._offset = offset
        self._count = 0
        self._lock = threading.Lock()

    def write(self, **told: str | int) -> None:
        """Write down one thing that was told."""
        with self._lock:
            self._buffer[:] = json.dumps(told).encode().ljust(BLOCK)
            place = self._offset + self._count % NOTES * BLOCK
            assert os.pwrite(self._descriptor, self._buffer, place) == BLOCK
            self._count += 1
            # For whoever waits outside; the place in the history counts, not this line.
            say(told)


class Host:
    """A host program that logs people in, see ``tests/pam/host.c``."""

    def __init__(self, program: str, services: str) -> None:
        """Take the compiled program and the directory of its PAM services."""
        self._command = (program, services)

    def log_in(self, service: str, user: str, terminal: str, answers: list[str]) -> list[str]:
        """Log in with these answers; return the result and the questions."""
        arguments = (*self._command, service, user, "auth", f"tty={terminal}")
        with subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            left, asked = list(answers), []
            for line in process.stdout:
                kind, *values = line.split()
                if kind == "ready":
                    say = "go"
                elif kind == "message" and int(values[0]) <= ECHOING:
                    asked.append(bytes.fromhex(values[1]).decode())
                    say = f"answer {left.pop(0).encode().hex()}" if left else "abort"
                elif kind == "status":
                    return [values[0], *asked]
                else:
                    continue
                process.stdin.write(f"{say}\n")
                process.stdin.flush()
        return ["ended", *asked]


def log_in_for_ever(notes: Notes, host: Host, user: str, plan: dict[str, Any]) -> None:
    """Use one code after the other; now and then a used one first, which must be refused.

    Where the machine is too slow for a verdict, that is written down: the code may be used.
    """
    used = plan["used"]
    for number in range(plan["next"], len(plan["codes"])):
        terminal, code = f"{user}-{number}", plan["codes"][number]
        answers = [plan["codes"][used], code] if used is not None and number % 4 == 0 else [code]
        if used is not None and number == plan["next"]:  # what was told before the power went
            answers = [plan["codes"][used], code]
        result, *asked = host.log_in(plan["service"], user, terminal, answers)
        if result == UNAVAILABLE:  # a slow machine: the code may be used, and nobody was told
            notes.write(user=user, spent=number)
            continue
        if result != SUCCESS or len(asked) != len(answers):
            say({"fault": [terminal, result, *asked, journal()]})
            return
        notes.write(user=user, number=number, terminal=terminal)
        used = number


def journal() -> str:
    """Return what verifiers have said last."""
    command = ("journalctl", "--identifier=pam-mfad", "--output=cat", "--lines=5")
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def enable_for_ever(notes: Notes, command: list[str], first: int) -> None:
    """Enable one device after the other by the command line."""
    number = first
    while True:
        user = f"paper{number}"
        done = subprocess.run(
            [*command, "enable", "recovery", user], capture_output=True, text=True, check=False
        )
        if done.returncode:
            say({"fault": [user, done.stdout, done.stderr]})
            return
        notes.write(paper=user)
        number += 1


def rotate_for_ever() -> None:
    """Rotate the audit log as logrotate does: each older log gets the next number."""
    while True:
        time.sleep(ROTATE_EVERY)
        if not LOG.exists():
            continue
        for number in range(sum(1 for _ in LOG.parent.iterdir()) - 1, 0, -1):
            LOG.with_name(f"{LOG.name}.{number}").rename(LOG.with_name(f"{LOG.name}.{number + 1}"))
        LOG.rename(LOG.with_name(f"{LOG.name}.1"))


def main() -> None:
    """Start everybody, and end with standard input."""
    plan = json.loads(sys.stdin.readline())
    notes = Notes(plan["device"], plan["offset"])
    host = Host(plan["host"], plan["services"])
    threads = [
        threading.Thread(target=log_in_for_ever, args=(notes, host, user, one), daemon=True)
        for user, one in plan["people"].items()
    ]
    threads.append(
        threading.Thread(
            target=enable_for_ever, args=(notes, plan["command"], plan["papers"]), daemon=True
        )
    )
    threads.append(threading.Thread(target=rotate_for_ever, daemon=True))
    for thread in threads:
        thread.start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
