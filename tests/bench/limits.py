# SPDX-License-Identifier: Apache-2.0
"""How the product grows and what it takes: users, devices, the log, open prompts, memory, start-up.

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
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from contender import BenchmarkError, User, create_users, totp
from machine import describe_machine
from served import Served, alternate, count_switches, modules_loaded, status_of
from syslog_sink import working_syslog

LOGINS = 100  # beside those that are counted below
GROWN = 101  # users of a root that grows: one login before, the others measured
FEW = GROWN
DEVICES = 8
AT_ONCE = 256
PROMPTS = 1000
MEANWHILE = 30  # logins of which a median is taken
PROMPT, VERDICT = 0x81, 0x82  # frames of wire.py
FIDO_LIBRARIES = ("fido2", "pyudev")
NUMBER = struct.Struct(">I").pack


class Figure(NamedTuple):
    """Something measured, and what it is to be."""

    name: str
    value: str
    aim: str = ""


class Options(NamedTuple):
    """The command line."""

    prefix: Path
    users: int
    log: int  # bytes
    prompts: float  # seconds
    idle: int  # seconds
    state: Path


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


def add_users(options: Options, served: Served) -> None:
    """Enroll many users who never log in, by the command that imports them."""
    path = served.root / "users.oath"
    lines = (f"HOTP/T30 crowd{n} - {n:040x}\n" for n in range(1, options.users + 1))
    path.write_text("".join(lines), "ascii")
    path.chmod(0o600)
    command = [f"{options.prefix}/bin/pam-mfa", "--root", str(served.root), "import", "oath"]
    subprocess.run([*command, str(path)], check=True, stdout=subprocess.DEVNULL, timeout=1800)


def add_devices(options: Options, served: Served) -> None:
    """Give each user seven devices more."""
    command = ["/usr/bin/python3", "-IS", "-c", ENABLE_MORE, str(options.prefix), str(served.root)]
    names = " ".join(user.name for user in served.users)
    subprocess.run([*command, str(DEVICES - 1)], input=names, text=True, check=True)


def add_records(options: Options, served: Served) -> None:
    """Have the log be as long as is asked for."""
    served.lengthen_log(options.log)


def idle(served: Served, seconds: int) -> list[Figure]:
    """Return what a daemon takes that nobody asks anything, in both of its processes."""
    served.log_in()  # one that has worked, and has nothing left to do
    served.wait_until_quiet()
    processes = served.processes
    wait_until_asleep(processes)
    before = [count_switches(pid) for pid in processes]
    time.sleep(seconds)
    woken = [count_switches(pid) - was for pid, was in zip(processes, before, strict=True)]
    resident = [f"{status_of(pid, 'VmRSS') / 1024:.1f}" for pid in processes]
    return [
        Figure("idle daemon, wake-ups", f"{sum(woken)} in {seconds} s", "none"),
        Figure("idle daemon, resident", f"{' and '.join(resident)} MB", "<= 35 MB"),
    ]


def wait_until_asleep(processes: Sequence[int]) -> None:
    """Wait until what follows a verdict is done: on a busy machine it is preempted on its way.

    Raises:
        BenchmarkError: some process never sleeps for two seconds.
    """
    for _ in range(30):
        before = [count_switches(pid) for pid in processes]
        time.sleep(2)
        if before == [count_switches(pid) for pid in processes]:
            return
    raise BenchmarkError("the daemon does not come to rest")


@contextlib.contextmanager
def prompts(served: Served, count: int) -> Iterator[list[socket.socket]]:
    """Have this many conversations at their prompt, of the frames of wire.py."""
    fields = ((1, NUMBER(1)), (3, b"bench"), (4, b"nobody-here"), (11, NUMBER(600)))
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


def open_prompts(served: Served, count: int, seconds: float) -> list[Figure]:
    """Return what many open prompts cost, and whether each gets its verdict at their end."""
    alone = served.median(MEANWHILE)
    with prompts(served, count) as callers:
        shown = sum(caller.recv(65536)[1] == PROMPT for caller in callers)
        ends_at = time.monotonic() + seconds
        meanwhile = served.median(MEANWHILE)
        time.sleep(max(0.0, ends_at - time.monotonic()))
        resident = status_of(served.processes[0], "VmRSS") / 1024
        late = served.median(MEANWHILE)
        for caller in callers:
            caller.send(bytes((1, 3)) + bytes(16))  # nobody can be asked
        ended = sum(caller.recv(65536)[1] == VERDICT for caller in callers)
    what = f"{count} prompts open for {seconds:.0f} s"
    return [
        Figure(what, f"{shown} shown, {ended} ended by a verdict", "none lost"),
        Figure(f"{what}: resident", f"{resident:.1f} MB", "<= 100 MB"),
        Figure("a login at their beginning", times(alone, meanwhile), "<= x 1.5"),
        Figure("a login at their end", times(alone, late), "<= x 1.5"),
    ]


def together(served: Served, count: int) -> Figure:
    """Return what became of logins that begin at one moment."""
    attempts = served.log_in_together(count)
    began = min(one.began for one in attempts)
    took = max(one.ended for one in attempts) - began
    accepted = sum(one.accepted for one in attempts)
    what = f"{accepted} accepted, {count - accepted} refused, {accepted / took:.0f} logins/s"
    return Figure(f"{count} logins at once", what, "none refused")


def times(few: float, many: float) -> str:
    """Return two times and their ratio."""
    return f"{few:.2f} ms -> {many:.2f} ms, x {many / few:.2f}"


def host_memory(served: Served) -> Figure:
    """Return by how much a login enlarges a host program, beside pam_permit."""
    (served.services / "permit").write_text("auth required pam_permit.so\n", "ascii")

    def resident(service: str) -> int:
        user = served.next_user()
        code = totp(user, time.time())
        command = [sys.executable, "-c", HOST, str(Path(__file__).parent), str(served.services)]
        text = subprocess.run(
            [*command, service, user.name, code], check=True, capture_output=True, text=True
        ).stdout
        found = re.search(r"VmHWM:\s+(\d+)", text)
        return int(found[1]) if found else 0

    permit = min(resident("permit") for _ in range(5))
    ours = min(resident("bench") for _ in range(5))
    what = f"{(ours - permit) / 1024:.2f} MB more than with pam_permit"
    return Figure("host program, resident", what, "<= 1 MB (pam_python: 17)")


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
        Figure("bare interpreter", f"{seconds_of([python, '-IS', '-c', 'pass']):.1f} ms"),
        Figure("and the verifier's imports", f"{seconds_of([program, '--version']):.1f} ms"),
    ]
    done = subprocess.run(
        [python, "-X", "importtime", "-IS", program, "--version"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = re.findall(r"import time:\s+(\d+) \|\s+(\d+) \| +(\S+)", done.stderr)
    ranked = sorted(((int(own), name) for own, _, name in lines), reverse=True)
    return rows + [
        Figure(f"  {name}", f"{own / 1000:.2f} ms by itself") for own, name in ranked[:show]
    ]


def measure(options: Options, directory: Path, say: Callable[[Figure], None]) -> None:
    """Measure everything, and say each figure as soon as it is known."""
    for figure in start_up(options.prefix, 12):
        say(figure)
    users = create_users(LOGINS + AT_ONCE + 4 * MEANWHILE)
    with contextlib.ExitStack() as stack:

        def serve(name: str, some: Sequence[User]) -> Served:
            served = Served(options.prefix, directory / name, some)
            stack.callback(served.close)
            return served

        few = serve("few", users)
        for figure in idle(few, options.idle):
            say(figure)
        say(together(few, AT_ONCE))
        for figure in open_prompts(few, PROMPTS, options.prompts):
            say(figure)
        say(host_memory(few))
        for name, grow, aim in (
            (f"{DEVICES} devices instead of 1", add_devices, "<= x 1.2"),
            (f"{options.users} users instead of {FEW}", add_users, "<= x 1.1"),
            (f"a log of {options.log / 1e9:.1f} GB", add_records, "no change"),
        ):
            small, large = (serve(f"{name}-{size}"[-20:].replace(" ", "-"), users[:GROWN])
                            for size in ("small", "large"))  # fmt: skip
            small.log_in(), large.log_in()
            grow(options, large)
            say(Figure(name, times(*alternate(small, large, GROWN - 1)), aim))
        found = modules_loaded(options.prefix, few, FIDO_LIBRARIES)
        say(Figure("FIDO libraries of a daemon", ", ".join(found) or "not loaded", "on first use"))


def main() -> int:
    """Run, with a plain sentence where it cannot."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prefix", type=Path, required=True, help="where pam-mfa is installed")
    parser.add_argument("--users", type=int, default=100_000, help="users who never log in")
    parser.add_argument("--log", type=int, default=5_000_000_000, help="bytes of an audit log")
    parser.add_argument("--prompts", type=float, default=120.0, help="seconds that they are open")
    parser.add_argument("--idle", type=int, default=60, help="seconds that nobody asks anything")
    parser.add_argument("--state", type=Path, default=Path("/var/tmp"))  # noqa: S108 - a disk
    options = Options(**vars(parser.parse_args()))
    options = options._replace(prefix=options.prefix.resolve())

    def say(figure: Figure) -> None:
        aim = f"   ({figure.aim})" if figure.aim else ""
        sys.stdout.write(f"{figure.name:<36} {figure.value}{aim}\n")
        sys.stdout.flush()

    try:
        with tempfile.TemporaryDirectory(prefix="limits-bench-", dir=options.state) as name:
            Path(name).chmod(0o755)
            with working_syslog():
                for key, value in asdict(describe_machine(Path(name), "read")).items():
                    say(Figure(key, str(value)))
                measure(options, Path(name), say)
    except BenchmarkError as error:
        sys.stderr.write(f"limits: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
