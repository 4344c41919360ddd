# SPDX-License-Identifier: Apache-2.0
"""Inside the guest of `keys.py`: logins by a touch through the real libpam. Prints JSON.

pam_mfa and pam_u2f ask the same software key behind uhid, in turns; it touches itself at once. The
key's own time is the processor time that its process takes during a login; what is left is the
module's, and libpam's. Run with /opt and pam-mfa's libraries in PYTHONPATH.
"""

import ctypes
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import pyudev
from key_speed import calculate
from one_login import Libpam, Messages
from security_key.control import tell

USER = "alice"
PREFIX = Path("/opt/pam-mfa")
SERVICES = Path("/run/bench-pam.d")
STATE, CONTROL = Path("/run/bench-key.json"), Path("/run/bench-key.sock")
U2F_KEYS = Path("/run/bench-u2f-keys")
SOCKETS = ("pam-mfad.socket", "pam-mfad-self.socket")
DAEMON, ON_DEMAND, PAM_U2F, FLOOR = "pam_mfa", "pam_mfa on demand", "pam_u2f", "pam_permit"
MODULES = {
    DAEMON: f"{PREFIX}/lib/security/pam_mfa.so",
    ON_DEMAND: f"{PREFIX}/lib/security/pam_mfa.so",
    PAM_U2F: f"pam_u2f.so authfile={U2F_KEYS} cue",
    FLOOR: "pam_permit.so",
}
SERVICE_OF = {name: name.replace(" ", "-") for name in MODULES}
CUE = "Touch"
SETTLED = 1.0  # seconds after which a login that says it waits for a key does


class Person(Libpam):
    """Who logs in: notes what is shown, and when."""

    def __init__(self, services: Path) -> None:
        """Load libpam."""
        super().__init__(services)
        self.shown: list[tuple[float, str]] = []
        self.told = threading.Event()

    def _converse(self, count: int, messages: object, responses: object, data: object) -> int:
        shown = ctypes.cast(messages, Messages)  # type: ignore[arg-type]
        for i in range(count):
            self.shown.append((perf_counter(), (shown[i].contents.msg or b"").decode()))
        self.told.set()
        return super()._converse(count, messages, responses, data)


class Key:
    """The software key's process: attached, and touched at once, always."""

    def __init__(self) -> None:
        """Start it."""
        options = ("--transport", "uhid", "--state", str(STATE), "--control", str(CONTROL))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "security_key", *options], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        run("udevadm", "settle")

    def processor_time(self) -> float:
        """Return the seconds of processor time that it took so far."""
        clock = (~self._process.pid << 3) | 2  # CPUCLOCK_SCHED of linux/posix-timers.h
        return time.clock_gettime(clock)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def run(*command: str) -> str:
    """Run a program and return what it printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def without_units() -> Iterator[None]:
    """Have no daemon listen."""
    run("systemctl", "stop", "pam-mfad.service", *SOCKETS)
    yield
    run("systemctl", "start", *SOCKETS)


def set_up() -> None:
    """Enable the key with both modules, and write a PAM service for each."""
    run(str(PREFIX / "bin/pam-mfa"), "enable", "fido", USER, "--name", "bench")
    U2F_KEYS.write_text(run("pamu2fcfg", "-u", USER))
    SERVICES.mkdir(exist_ok=True)
    (SERVICES / "other").write_text("auth required pam_deny.so\n")
    for name, module in MODULES.items():
        (SERVICES / SERVICE_OF[name]).write_text(f"auth required {module}\n")


def measure_login(name: str, key: Key, person: Person) -> tuple[float, float]:
    """Log in once; return the milliseconds that it took, and those of the key in them."""
    before = key.processor_time()
    attempt = person.log_in(SERVICE_OF[name], USER, "")
    spent = key.processor_time() - before
    assert attempt.accepted, f"{name} refused a touch"
    return attempt.seconds * 1000, spent * 1000


def measure_hotplug(person: Person) -> tuple[float, float]:
    """Plug the key in while a login waits; return the milliseconds to udev's event and the cue."""
    tell(CONTROL, "unplug")
    run("udevadm", "settle")
    events = pyudev.Monitor.from_netlink(pyudev.Context(), "udev")
    events.filter_by("hidraw")
    events.start()
    person.shown.clear()
    person.told.clear()
    login = threading.Thread(target=person.log_in, args=(SERVICE_OF[DAEMON], USER, ""))
    login.start()
    person.told.wait()
    time.sleep(SETTLED)
    plugged = perf_counter()
    tell(CONTROL, "plug")
    while events.poll().action != "add":
        pass
    event = perf_counter()
    login.join()
    cue = next(at for at, text in person.shown if text.startswith(CUE))
    return (event - plugged) * 1000, (cue - plugged) * 1000


def main() -> None:
    """Measure and print; the argument is how often."""
    rounds = range(int(sys.argv[1]))
    logins: dict[str, list[tuple[float, float]]] = {name: [] for name in MODULES}
    key = Key()
    try:
        set_up()
        person = Person(SERVICES)
        for name in (DAEMON, PAM_U2F):
            measure_login(name, key, person)  # starts the daemon, loads the libraries
        for _ in rounds:
            for name in (DAEMON, PAM_U2F, FLOOR):
                logins[name].append(measure_login(name, key, person))
        hotplug = [measure_hotplug(person) for _ in rounds]
        with without_units():
            logins[ON_DEMAND] = [measure_login(ON_DEMAND, key, person) for _ in rounds]
    finally:
        key.close()
    figures = {"logins": logins, "hotplug": hotplug, "calculation": calculate()}
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
