# SPDX-License-Identifier: Apache-2.0
"""How long sudo takes by a touch behind an ssh-agent, over what the agent itself takes.

Run as root: `python tests/bench/agent.py [--prefix DIR] [--rounds N]`. A real ssh-agent signs with
OpenSSH's security key of software, which nobody has to touch. In front of it stands a recorder
that passes bytes on and sees how long the agent takes. Figures are printed and never judged.
"""

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER.parent / "pam")]

from agents import running_agent  # noqa: E402 - found by the path above
from host_program import Login, Status, compile_host, run, write_service  # noqa: E402
from installed import DataRoot, install  # noqa: E402
from machine import describe_machine  # noqa: E402
from sk_keys import make_sk_key, public_half  # noqa: E402

NOBODY, USER = 65534, "nobody"
AIM = 15  # milliseconds over the agent's own time, with the daemon


class Recorder:
    """Passes on what goes between a caller and an agent, and adds up what the agent takes."""

    def __init__(self, agent: Path, path: Path) -> None:
        """Listen at a path, as the agent's user."""
        self.path = path
        self.milliseconds = 0.0
        self._agent = agent
        self._listener = socket.socket(socket.AF_UNIX)
        os.seteuid(NOBODY)
        try:
            self._listener.bind(str(path))
            self._listener.listen()
        finally:
            os.seteuid(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            caller, _ = self._listener.accept()
            with caller, socket.socket(socket.AF_UNIX) as agent:
                agent.connect(str(self._agent))
                while request := caller.recv(65536):
                    begun = time.perf_counter()
                    agent.sendall(request)
                    answer = agent.recv(65536)
                    self.milliseconds += (time.perf_counter() - begun) * 1000
                    caller.sendall(answer)


class Series(NamedTuple):
    """Logins of one kind; milliseconds."""

    name: str
    wall: list[float]
    agent: list[float]

    def row(self, floor: float) -> str:
        """Return its medians, as a line of the table."""
        own = [wall - agent for wall, agent in zip(self.wall, self.agent, strict=True)]
        figures = (statistics.median(self.wall), statistics.median(self.agent))
        over = statistics.median(own) - floor
        return f"{self.name:30}{figures[0]:10.2f}{figures[1]:10.2f}{over:10.2f}"


def parse_options() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prefix", type=Path, help="an installation; else one is made")
    parser.add_argument("--rounds", type=int, default=30, help="logins of each kind")
    return parser.parse_args()


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """Give a folder that everybody can enter."""
    place = Path(tempfile.mkdtemp(prefix="pam-mfa-bench-", dir="/var/tmp"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)


def measure(login: Login, recorder: Recorder, name: str, rounds: int) -> Series:
    """Log in so many times."""
    series = Series(name, [], [])
    for _ in range(rounds + 1):
        recorder.milliseconds = 0.0
        outcome = run(login)
        if outcome.status != Status.SUCCESS:
            raise SystemExit(f"{name}: a login was refused: {outcome}")
        series.wall.append(outcome.seconds * 1000)
        series.agent.append(recorder.milliseconds)
    del series.wall[0], series.agent[0]  # the first one warms up
    return series


def measure_all(root: DataRoot, place: Path, rounds: int) -> list[Series]:
    """Measure PAM alone, the daemon, and verifiers on demand."""
    text = root.policy.read_text("utf-8")
    root.policy.write_text(text.replace("sign_count: refuse", "sign_count: warn"), "utf-8")
    key = make_sk_key(place / "laptop")
    root.command("enable", "ssh-key", USER, "--public-key", str(public_half(key)), "--vouch")
    program = compile_host(place / "host")
    program.chmod(0o4755)
    with running_agent(NOBODY) as agent:
        agent.add(key)
        recorder = Recorder(agent.socket, agent.place / "recorder")
        login = Login(
            root, USER, write_service(root, "sudo", f"auth required {root.module}"),
            options=[f"ruser={USER}"], uid=NOBODY, program=program,
            environment={"SSH_AUTH_SOCK": str(recorder.path)},
        )  # fmt: skip
        alone = login._replace(service=write_service(root, "alone", "auth required pam_permit.so"))
        found = [measure(alone, recorder, "pam_permit", rounds)]
        with root.daemon():
            found.append(measure(login, recorder, "pam_mfa, daemon", rounds))
        found.append(measure(login, recorder, "pam_mfa, started on demand", rounds))
    return found


def report(place: Path, series: list[Series]) -> None:
    """Print the machine and the table."""
    version = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    facts = asdict(describe_machine(place, "not measured")) | {"openssh": version.strip()}
    lines = [f"{name}: {value}" for name, value in facts.items() if name != "packages"]
    floor = statistics.median(series[0].wall)
    lines += ["", "milliseconds, medians; own: over the agent's time and pam_permit's"]
    lines += [f"{'':30}{'all':>10}{'agent':>10}{'own':>10}"]
    lines += [one.row(floor) for one in series]
    lines += [f"aim: own at most {AIM} ms with the daemon"]
    sys.stdout.write("\n".join(lines) + "\n")


def main() -> None:
    """Install, measure, print."""
    options = parse_options()
    with workplace() as place:
        prefix = options.prefix or place / "prefix"
        if options.prefix is None:
            install(prefix)
        root = DataRoot(prefix)
        try:
            report(place, measure_all(root, place, options.rounds))
        finally:
            root.remove()


if __name__ == "__main__":
    main()
