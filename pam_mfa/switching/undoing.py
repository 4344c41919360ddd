# SPDX-License-Identifier: Apache-2.0
"""What undoes a switch that nobody confirms: a timer of systemd's, else a process of its own.

Both do nothing but call ``expire`` when the time is over; what there is to undo, the journal says.
The boot after a power loss is ``pam-mfa-switch.service``'s.
"""

import contextlib
import os
import signal
import subprocess
import sys
import syslog
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from pam_mfa.errors import PamMfaError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UNIT = "pam-mfa-switch-undo"
BOOT_UNIT: Final = "pam-mfa-switch.service"
_PATIENCE = 20.0  # seconds that systemd may take
_LOOK_SECONDS = 10.0
_RETRIES, _RETRY_SECONDS = 30, 2.0  # another switch may be at work
Expire = Callable[[], list[str]]


class Charge(NamedTuple):
    """What there is to do when the time is over, and whether there still is."""

    expire: Expire
    is_waiting: Callable[[], bool]


def current_boot() -> str:
    """Return what no other boot of this machine has."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return "unknown"


def seconds_since_boot() -> float:
    """Return a time that no setting of the clock moves, and that goes on in suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def arm(root: Path, seconds: float, charge: Charge) -> str:
    """Have switches of this root expire after so many seconds; return by what, as a word.

    Raises:
        OSError: neither could be started.
    """
    if root == Path("/") and Path("/run/systemd/system").is_dir() and _arm_systemd(seconds):
        return "systemd"
    _start_process(seconds, charge)
    return "process"


def find_boot_gap(root: Path) -> str:
    """Return what to tell where no unit would undo an unconfirmed switch at the next boot."""
    if root != Path("/") or not Path("/run/systemd/system").is_dir():
        return ""
    done = subprocess.run(  # noqa: S603 - a fixed program
        ["systemctl", "--quiet", "is-enabled", BOOT_UNIT],  # noqa: S607 - as in every shell
        capture_output=True, timeout=_PATIENCE, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode == 0:
        return ""
    return (
        f"Note: {BOOT_UNIT} is not enabled: what a power cut interrupts is undone by the next "
        "pam-mfa switch command, and not by the boot. See the README."
    )


def _arm_systemd(seconds: float) -> bool:
    program = Path(sys.argv[0]).resolve()
    if not os.access(program, os.X_OK):
        return False
    unit = f"{_UNIT}-{int(time.time())}-{os.getpid()}"
    arguments = [
        "systemd-run", "--quiet", "--collect", f"--unit={unit}", f"--on-active={seconds:.0f}s",
        "--timer-property=AccuracySec=1s", "--", str(program), "switch", "expire",
    ]  # fmt: skip
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program
            arguments, capture_output=True, timeout=_PATIENCE, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _start_process(seconds: float, charge: Charge) -> None:
    """Start a process that no logout, terminal or parent ends."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        _detach()
        _wait(seconds, charge)
    finally:
        os._exit(0)


def _detach() -> None:
    """Let go of everything of the caller's: its lock and terminal among them."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, max(os.sysconf("SC_OPEN_MAX"), 1024))


def _wait(seconds: float, charge: Charge) -> NoReturn:
    """Wait, undo what is due, and end; sooner where all is confirmed or off."""
    until = seconds_since_boot() + seconds
    while (left := until - seconds_since_boot()) > 0:
        time.sleep(min(left, _LOOK_SECONDS))
        with contextlib.suppress(PamMfaError):
            if not charge.is_waiting():
                os._exit(0)
    with contextlib.suppress(PamMfaError):
        expire_patiently(charge.expire)
    os._exit(0)


def expire_patiently(expire: Expire) -> list[str]:
    """Undo what is due, and say so in the system log; another switch may be at work meanwhile.

    Raises:
        PamMfaError: it could not be undone, which the system log is told, too.
    """
    syslog.openlog("pam-mfa", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    for left in reversed(range(_RETRIES)):
        try:
            said = expire()
            break
        except PamMfaError as error:
            syslog.syslog(syslog.LOG_ERR, f"a switch could not be undone: {error}")
            if not left:
                raise
            time.sleep(_RETRY_SECONDS)
    for sentence in said:
        syslog.syslog(syslog.LOG_WARNING, sentence)
    return said
