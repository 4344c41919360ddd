# SPDX-License-Identifier: Apache-2.0
"""How long a login takes: pam_mfa beside the modules people use today, through the real libpam.

Run as root: `python tests/bench/logins.py --prefix DIR`. Every user of every contender logs in once
with a right code, at each level of parallel logins. The contenders take turns in rounds, so that a
machine that gets slower or faster during the run does so for all of them. Figures are printed and
never judged; only a right code refused at one at once, or a wrong or repeated one accepted, makes
the exit status 1. Status 2: the benchmark could not run.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from contender import TIME_STEP, BenchmarkError, Contender, User, create_users, cross_check
from crowd import Crowd
from figures import Figures, Series, as_json, as_text, compare, summarize
from machine import describe_machine
from one_login import Libpam
from peers import GoogleAuthenticator, Oath, Permit
from product import Installation, Product
from syslog_sink import working_syslog

STATE_PARENT = Path("/var/tmp")  # noqa: S108  # a disk, as in real use; /tmp may be memory
CROSS_CHECKED = 3  # users whose code oathtool computes too


@dataclass(frozen=True)
class Options:
    """The command line."""

    users: int
    parallel: tuple[int, ...]
    rounds: int
    prefix: Path | None
    no_syslog_reader: bool
    state: Path
    json: bool


def parse_options(arguments: Sequence[str]) -> Options:
    """Return the command line's options; argparse exits on wrong usage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--users", type=_positive, default=1000, help="users of each contender")
    parser.add_argument("--parallel", type=_levels, default=(1, 16), help="levels, such as 1,16")
    parser.add_argument("--rounds", type=_positive, default=5, help="turns of each contender")
    parser.add_argument("--prefix", type=Path, help="where pam-mfa is installed; none: peers only")
    parser.add_argument(
        "--state", type=Path, default=STATE_PARENT, help="a folder on the disk to use"
    )
    parser.add_argument(
        "--no-syslog-reader",
        action="store_true",
        help="leave a machine without a syslog as it is: modules that log then pay for it",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, single rounds included")
    return Options(**vars(parser.parse_args(arguments)))


def _positive(text: str) -> int:
    """Return a whole number above zero."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above zero")
    return int(text)


def _levels(text: str) -> tuple[int, ...]:
    """Return the numbers of parallel logins, separated by commas."""
    return tuple(dict.fromkeys(_positive(part) for part in text.split(",")))


def create_contenders(directory: Path, installation: Installation | None) -> list[Contender]:
    """Return every contender, each with a place of its own under an empty directory."""
    contenders: list[Contender] = [
        Permit(),
        GoogleAuthenticator(directory / "google"),
        Oath(directory / "oath"),
    ]
    if installation is not None:
        contenders.append(Product(installation, directory / "mfa", daemon=True))
        contenders.append(Product(installation, directory / "mfa-on-demand", daemon=False))
    return contenders


def prepare(
    contenders: Sequence[Contender], users: Sequence[User], services: Path
) -> dict[str, Contender]:
    """Set every contender up; return them by the name of their PAM service."""
    services.mkdir(mode=0o755)
    (services / "other").write_text("auth required pam_deny.so\n", encoding="ascii")
    named = {}
    for i, contender in enumerate(contenders):
        service = f"bench-{i}"
        (services / service).write_text(contender.prepare(users), encoding="ascii")
        named[service] = contender
    return named


def check_verdicts(named: Mapping[str, Contender], services: Path, spare: User) -> list[str]:
    """Return what is wrong with the verdicts: it would make the figures worthless.

    A module that lets everything in is fast, and so is one that forgets which codes were used.
    """
    libpam = Libpam(services)
    faults = []
    for service, contender in named.items():
        now = _time_with_room()
        right = contender.code(spare, now)
        wrong = str((int(right) + 1) % 10 ** len(right)).zfill(len(right))
        tries = {"a wrong code": (wrong, False), "a right code": (right, True)}
        tries["a repeated code"] = (right, False)
        for what, (code, expected) in tries.items():
            accepted = libpam.log_in(service, spare.name, code).accepted
            if accepted != expected and (contender.verifies or expected):
                verb = "accepted" if accepted else "refused"
                faults.append(f"{contender.name} {verb} {what}")
    return faults


def _time_with_room() -> float:
    """Return the time, waiting where a time step is about to end: a few logins share one code."""
    left = TIME_STEP - time.time() % TIME_STEP
    if left < 5:  # seconds
        time.sleep(left)
    return time.time()


def take_turns(
    crowd: Crowd, named: Mapping[str, Contender], users: Sequence[User], rounds: int
) -> list[Series]:
    """Let the contenders log in by turns, a different one first each round."""
    series = {service: Series(one.name, crowd.size) for service, one in named.items()}
    shares = {
        service: divide(users[: contender.at_most], crowd.size, rounds)
        for service, contender in named.items()
    }
    order = list(named)
    for i in range(rounds):
        for service in order:
            if i < len(shares[service]):
                series[service].rounds.append(crowd.log_in(service, shares[service][i]))
        order.append(order.pop(0))
    return list(series.values())


def divide(users: Sequence[User], at_once: int, rounds: int) -> list[Sequence[User]]:
    """Share the users out to rounds, to fewer where the workers would not all have a login."""
    count = max(1, min(rounds, len(users) // at_once))
    return [users[i::count] for i in range(count)]


@dataclass(frozen=True)
class Bench:
    """All contenders at one level, in a directory that does not exist yet."""

    users: Sequence[User]
    rounds: int
    directory: Path
    installation: Installation | None

    def measure(self, at_once: int) -> tuple[list[Figures], list[str]]:
        """Measure from a fresh state; return figures, and faults that make them worthless."""
        self.directory.mkdir(mode=0o755)
        services = self.directory / "pam.d"
        *crowd_users, spare = self.users
        contenders = create_contenders(self.directory, self.installation)
        with ExitStack() as stack:
            for contender in contenders:
                stack.callback(contender.close)
            named = prepare(contenders, self.users, services)
            faults = check_verdicts(named, services, spare)
            with Crowd(at_once, named, services) as crowd:
                series = take_turns(crowd, named, crowd_users, self.rounds)
        figures = [summarize(one) for one in series]
        faults += [
            f"{one.name} refused {one.attempted - one.accepted} of {one.attempted} right codes"
            for one in figures
            if at_once == 1 and one.accepted < one.attempted
        ]
        return figures, faults


def run(options: Options) -> int:
    """Measure, print, and return the exit status."""
    if os.geteuid() != 0:
        raise BenchmarkError("run as root: the modules open files that only root may read")
    if not options.state.is_dir():
        raise BenchmarkError(f"{options.state} is not a folder")
    users = create_users(options.users + 1)
    cross_check(users[:CROSS_CHECKED], time.time())
    all_figures: list[Figures] = []
    all_faults: list[str] = []
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="login-bench-", dir=options.state)
        directory = Path(stack.enter_context(temporary))
        directory.chmod(0o755)  # a verifier that gave up root must reach its data
        installation = Installation(options.prefix, directory) if options.prefix else None
        syslog = "as it is on this machine"
        if not options.no_syslog_reader:
            syslog = stack.enter_context(working_syslog())
        machine = describe_machine(directory, syslog)
        for at_once in options.parallel:
            bench = Bench(users, options.rounds, directory / f"at-once-{at_once}", installation)
            figures, faults = bench.measure(at_once)
            all_figures += figures
            all_faults += faults
    show = as_json if options.json else as_text
    sys.stdout.write(show(machine, compare(all_figures)) + "\n")
    for fault in all_faults:
        sys.stderr.write(f"logins: {fault}\n")
    return 1 if all_faults else 0


def main() -> int:
    """Run, with a plain sentence where it cannot; clean up on SIGTERM too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return run(parse_options(sys.argv[1:]))
    except BenchmarkError as error:
        sys.stderr.write(f"logins: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
