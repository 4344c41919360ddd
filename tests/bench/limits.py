# SPDX-License-Identifier: Apache-2.0
"""How the product grows and what it takes: users, devices, open prompts, memory, start-up.

Run as root: `python tests/bench/limits.py --prefix DIR`. Ratios are of medians of turns that
alternate, so that a machine that gets slower does so for both. Figures are printed, never judged.
"""

import argparse
import contextlib
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from contender import BenchmarkError, User, create_users, totp
from one_login import Libpam
from product import Installation, Product
from syslog_sink import working_syslog

LOGINS = 100
FEW = 10
DEVICES = 8
NUMBER = struct.Struct(">I").pack
Figure = tuple[str, str]
ENABLE_MORE = """
import sys
prefix, root, count = sys.argv[1:]
sys.path.insert(0, prefix + "/lib/python")
import time
from pathlib import Path
from pam_mfa import oath
from pam_mfa.lifecycle import open_lifecycle
with open_lifecycle(Path(root)) as lifecycle:
    for user in sys.stdin.read().split():
        for number in range(int(count)):
            pending = lifecycle.begin_virtual(user, f"more{number}")
            now = oath.time_step(time.time(), 30)
            codes = oath.codes(pending.seed, pending.parameters, range(now - 2, now))
            lifecycle.enable(pending, *codes)
"""
HOST = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from one_login import Libpam
Libpam(Path(sys.argv[2])).log_in(sys.argv[3], sys.argv[4], sys.argv[5])
print(Path("/proc/self/status").read_text())
"""


class Served:
    """One data root with a daemon, and a PAM service for it."""

    def __init__(self, prefix: Path, directory: Path, users: Sequence[User]) -> None:
        """Provision the users and start the daemon."""
        directory.mkdir(mode=0o755)
        self.root = directory / "root"
        self.users = list(users)
        self._product = Product(Installation(prefix, directory), self.root, daemon=True)
        self.services = directory / "pam.d"
        self.services.mkdir()
        line = self._product.prepare(users)
        (self.services / "bench").write_text(line, "ascii")

    def close(self) -> None:
        """Stop the daemon."""
        self._product.close()

    def log_in(self, user: User) -> float:
        """Log in once; return the milliseconds.

        Raises:
            BenchmarkError: the right code was refused.
        """
        attempt = Libpam(self.services).log_in("bench", user.name, totp(user, time.time()))
        if not attempt.accepted:
            raise BenchmarkError(f"a right code was refused: {attempt.status}")
        return attempt.seconds * 1000

    @property
    def daemon(self) -> int:
        """The daemon's process id."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if bytes(self.root) in words and b"--serve" not in words:
                    return int(process.name)
        raise BenchmarkError("the daemon is gone")


def ratio(name: str, one: Served, other: Served) -> Figure:
    """Return the medians of logins that alternate between two roots, and their ratio."""
    took: tuple[list[float], list[float]] = ([], [])
    pairs = zip(one.users[:LOGINS], other.users[:LOGINS], strict=False)
    for first, second in pairs:
        took[0].append(one.log_in(first))
        took[1].append(other.log_in(second))
    few, many = map(statistics.median, took)
    return name, f"{few:.2f} ms -> {many:.2f} ms, x {many / few:.2f}"


def import_more(prefix: Path, root: Path, count: int) -> None:
    """Enroll many users who never log in, by the command that imports them."""
    path = root / "users.oath"
    lines = (f"HOTP/T30 crowd{number} - {number:040x}\n" for number in range(1, count + 1))
    path.write_text("".join(lines), "ascii")
    path.chmod(0o600)
    command = [f"{prefix}/bin/pam-mfa", "--root", str(root), "import", "oath", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=1800)


def status_of(pid: int, key: str) -> int:
    """Return a number of /proc/PID/status."""
    found = re.search(
        rf"^{key}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text("ascii"), re.MULTILINE
    )
    return int(found[1]) if found else 0


def idle(served: Served, seconds: int) -> Figure:
    """Return what a daemon takes that nobody asks anything."""
    pid = served.daemon
    before = status_of(pid, "voluntary_ctxt_switches")
    time.sleep(seconds)
    woken = status_of(pid, "voluntary_ctxt_switches") - before
    return (
        "idle daemon",
        f"RSS {status_of(pid, 'VmRSS') / 1024:.1f} MB, woken {woken} in {seconds} s",
    )


@contextlib.contextmanager
def prompts(served: Served, count: int) -> Iterator[list[socket.socket]]:
    """Have this many conversations at their prompt, of the frames of wire.py."""
    fields = ((1, NUMBER(1)), (3, b"bench"), (4, b"nobody-here"), (11, NUMBER(60)))
    body = b"".join(bytes((tag,)) + struct.pack(">H", len(v)) + v for tag, v in fields)
    with contextlib.ExitStack() as opened:
        callers = []
        for _ in range(count):
            caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            callers.append(opened.enter_context(caller))
            caller.settimeout(60)
            caller.connect(str(served.root / "run/pam_mfa/verify.sock"))
            caller.send(bytes((1, 1)) + bytes(16) + body)
        yield callers


def open_prompts(served: Served, count: int, user: User) -> list[Figure]:
    """Return what many open prompts cost, and whether each gets its verdict."""
    before = status_of(served.daemon, "VmRSS")
    with prompts(served, count) as callers:
        shown = sum(caller.recv(65536)[1] == 0x81 for caller in callers)
        grown = status_of(served.daemon, "VmRSS") - before
        took = served.log_in(user)
        for caller in callers:
            caller.send(bytes((1, 3)) + bytes(16))  # nobody can be asked
        ended = sum(caller.recv(65536)[1] == 0x82 for caller in callers)
    return [
        (f"{count} prompts open", f"{shown} shown, {ended} ended, {grown / count:.1f} kB each"),
        ("a login meanwhile", f"{took:.2f} ms"),
    ]


def host_memory(served: Served, user: User) -> Figure:
    """Return by how much a login enlarges a host program, beside pam_permit."""
    (served.services / "permit").write_text("auth required pam_permit.so\n", "ascii")

    def resident(service: str) -> int:
        code = totp(user, time.time())
        command = [sys.executable, "-c", HOST, str(Path(__file__).parent), str(served.services)]
        text = subprocess.run(
            [*command, service, user.name, code], check=True, capture_output=True, text=True
        ).stdout
        found = re.search(r"VmHWM:\s+(\d+)", text)
        return int(found[1]) if found else 0

    permit = min(resident("permit") for _ in range(5))
    ours = min(resident("bench") for _ in range(5))
    return "host program", f"{ours - permit} kB more than with pam_permit"


def seconds_of(command: Sequence[str | Path], turns: int = 15) -> float:
    """Return the median time of a program, in milliseconds."""
    took = []
    for _ in range(turns):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def start_up(prefix: Path, show: int) -> list[Figure]:
    """Return where the time of a start on demand goes: the interpreter, and imports."""
    python, program = "/usr/bin/python3", prefix / "bin/pam-mfad"
    rows = [
        ("bare interpreter", f"{seconds_of([python, '-IS', '-c', 'pass']):.1f} ms"),
        ("and the verifier's imports", f"{seconds_of([program, '--version']):.1f} ms"),
    ]
    done = subprocess.run(
        [python, "-X", "importtime", "-IS", program, "--version"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = re.findall(r"import time:\s+(\d+) \|\s+(\d+) \| +(\S+)", done.stderr)
    ranked = sorted(((int(own), name) for own, _, name in lines), reverse=True)
    return rows + [(f"  {name}", f"{own / 1000:.2f} ms by itself") for own, name in ranked[:show]]


def measure(prefix: Path, directory: Path, crowd: int, say: Callable[[Figure], None]) -> None:
    """Measure everything, and say each figure as soon as it is known."""
    for figure in start_up(prefix, 12):
        say(figure)
    users = create_users(LOGINS + 10)
    with contextlib.ExitStack() as stack:

        def serve(name: str, some: Sequence[User]) -> Served:
            served = Served(prefix, directory / name, some)
            stack.callback(served.close)
            return served

        few, many, rich = serve("few", users), serve("many", users), serve("rich", users[:LOGINS])
        say(idle(few, 10))
        names = " ".join(user.name for user in rich.users)
        subprocess.run(
            ["/usr/bin/python3", "-IS", "-c", ENABLE_MORE, prefix, rich.root, str(DEVICES - 1)],
            input=names, text=True, check=True,
        )  # fmt: skip
        say(ratio(f"{DEVICES} devices instead of 1", few, rich))
        import_more(prefix, many.root, crowd)
        time.sleep(max(0.0, 31 - time.time() % 30))  # few's users need the next step's codes
        say(ratio(f"{crowd} users more", few, many))
        for figure in open_prompts(few, 1000, users[LOGINS]):
            say(figure)
        say(host_memory(few, users[LOGINS + 1]))


def main() -> int:
    """Run, with a plain sentence where it cannot."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prefix", type=Path, required=True, help="where pam-mfa is installed")
    parser.add_argument("--users", type=int, default=100_000, help="users who never log in")
    parser.add_argument("--state", type=Path, default=Path("/var/tmp"))  # noqa: S108 - a disk
    options = parser.parse_args()

    def say(figure: Figure) -> None:
        sys.stdout.write(f"{figure[0]:<32} {figure[1]}\n")
        sys.stdout.flush()

    try:
        with tempfile.TemporaryDirectory(prefix="limits-bench-", dir=options.state) as name:
            Path(name).chmod(0o755)
            with working_syslog():
                measure(options.prefix.resolve(), Path(name), options.users, say)
    except BenchmarkError as error:
        sys.stderr.write(f"limits: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
