# SPDX-License-Identifier: Apache-2.0
"""How long imports take, how much memory they need, and whether logins get slower by them.

Run as root: `python tests/bench/imports.py --prefix DIR`. The installed pam-mfa imports the files
of google-authenticator in the homes of so many accounts, then so many tokens by CSV and by PSKC.
The accounts are in a mount namespace of its own; the machine's stay as they are. Between the
imports, users log in through the real libpam. Figures are printed and never judged; exit status 1:
an import failed, or a right code was refused. Status 2: the benchmark could not run.
"""

import argparse
import base64
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contender import TIME_STEP, BenchmarkError, User, create_users, totp
from machine import describe_machine
from one_login import Libpam
from product import Installation, Product, provision

FIRST_UID = 300000
LOGINS = 200  # users that log in before the imports, and as many after each
SEED_BYTES = 20
# What the commands see in the place of /etc/passwd.
WITH_ACCOUNTS = 'mount --bind "$0" /etc/passwd && exec "$@"'
PACKAGE = (
    "<KeyPackage><DeviceInfo><Manufacturer>Acme</Manufacturer><SerialNo>{serial}</SerialNo>"
    '</DeviceInfo><Key Id="{serial}" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:totp">'
    '<AlgorithmParameters><ResponseFormat Length="6" Encoding="DECIMAL"/></AlgorithmParameters>'
    "<Data><Secret><PlainValue>{seed}</PlainValue></Secret><TimeInterval><PlainValue>30"
    "</PlainValue></TimeInterval></Data></Key></KeyPackage>\n"
)


@dataclass(frozen=True)
class Options:
    """The command line."""

    prefix: Path
    count: int
    state: Path


@dataclass(frozen=True)
class Figure:
    """One command: its wall time, its processor time and its peak memory."""

    what: str
    seconds: float
    processor_seconds: float
    peak_mib: float
    said: str


class Host:
    """A data root, homes, and accounts that only the commands run here can see."""

    def __init__(self, options: Options, directory: Path) -> None:
        """Take an empty directory."""
        self._prefix = options.prefix
        self._directory = directory
        self.root = directory / "root"
        self._passwd = directory / "passwd"

    def make_homes(self, users: Sequence[User]) -> None:
        """Give each user an account, a home, and a secret file as the program writes it."""
        homes = self._directory / "homes"
        homes.mkdir(mode=0o755)
        lines = Path("/etc/passwd").read_text("utf-8").splitlines()
        for number, user in enumerate(users):
            uid, home = FIRST_UID + number, homes / user.name
            home.mkdir(mode=0o700)
            path = home / ".google_authenticator"
            path.write_text(secret_file(user), "ascii")
            path.chmod(0o400)
            os.chown(path, uid, uid)
            os.chown(home, uid, uid)
            lines.append(f"{user.name}:x:{uid}:{uid}::{home}:/bin/sh")
        self._passwd.write_text("\n".join([*lines, ""]), "utf-8")

    def run(self, what: str, *arguments: str) -> Figure:
        """Run pam-mfa and return what it took.

        Raises:
            BenchmarkError: it failed.
        """
        command = ["unshare", "--mount", "sh", "-c", WITH_ACCOUNTS, str(self._passwd)]
        command += [str(self._prefix / "bin/pam-mfa"), "--root", str(self.root), *arguments]
        output = self._directory / "output"
        with output.open("wb") as file:
            began = time.perf_counter()
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        said = output.read_text("utf-8").rstrip().rpartition("\n")[2]
        if process.returncode:
            raise BenchmarkError(f"{what} ended with {process.returncode}: {said}")
        processor = usage.ru_utime + usage.ru_stime
        return Figure(what, seconds, processor, usage.ru_maxrss / 1024, said)


def secret_file(user: User) -> str:
    """Return a secret file with the options and scratch codes that the program's defaults give."""
    codes = [str(10_000_000 + secrets.randbelow(90_000_000)) for _ in range(5)]
    options = ['" RATE_LIMIT 3 30', '" WINDOW_SIZE 3', '" DISALLOW_REUSE', '" TOTP_AUTH']
    return "\n".join([user.base32, *options, *codes, ""])


def write_tokens(directory: Path, count: int) -> tuple[Path, Path]:
    """Write a CSV file and a PSKC file of so many tokens each."""
    csv, pskc = directory / "tokens.csv", directory / "tokens.xml"
    with csv.open("w", encoding="ascii") as file:
        file.write("serial number,seed,type\n")
        for number in range(count):
            file.write(f"C{number:07d},ff{secrets.token_hex(SEED_BYTES - 1)},TOTP\n")
    with pskc.open("w", encoding="ascii") as file:
        file.write('<?xml version="1.0"?>\n<KeyContainer Version="1.0" ')
        file.write('xmlns="urn:ietf:params:xml:ns:keyprov:pskc">\n')
        for number in range(count):
            seed = base64.b64encode(secrets.token_bytes(SEED_BYTES)).decode("ascii")
            file.write(PACKAGE.format(serial=f"P{number:07d}", seed=seed))
        file.write("</KeyContainer>\n")
    return csv, pskc


def median_login(libpam: Libpam, users: Sequence[User]) -> float:
    """Return how long a login takes in milliseconds.

    Raises:
        BenchmarkError: a right code was refused.
    """
    attempts = [libpam.log_in("bench", user.name, totp(user, time.time())) for user in users]
    refused = sum(1 for attempt in attempts if not attempt.accepted)
    if refused:
        raise BenchmarkError(f"{refused} of {len(attempts)} right codes were refused")
    return statistics.median(attempt.seconds for attempt in attempts) * 1000


def parse_options(arguments: Sequence[str]) -> Options:
    """Return the command line's options; argparse exits on wrong usage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prefix", type=Path, required=True, help="where pam-mfa is installed")
    parser.add_argument("--count", type=int, default=100_000, help="users, and tokens of each file")
    parser.add_argument("--state", type=Path, default=Path("/var/tmp"), help="a folder on a disk")  # noqa: S108
    return Options(**vars(parser.parse_args(arguments)))


def measure(options: Options, directory: Path) -> tuple[list[Figure], dict[str, float]]:
    """Import everything; return the figures, and a login's time by when it was."""
    host = Host(options, directory)
    known = create_users(LOGINS * 2)
    imported = [User(f"home{n:06d}", secrets.token_bytes(SEED_BYTES)) for n in range(options.count)]
    host.make_homes(imported)
    csv, pskc = write_tokens(directory, options.count)
    product = Product(Installation(options.prefix, directory), host.root, daemon=True)
    (directory / "template").mkdir(mode=0o755)
    time.sleep(TIME_STEP - time.time() % TIME_STEP)  # all enabling codes are of one time step
    provision(options.prefix, directory / "template", known)
    services = directory / "pam.d"
    services.mkdir()
    try:
        (services / "bench").write_text(product.prepare([]), "ascii")
        libpam = Libpam(services)
        homes = ("import", "google-authenticator", "--all-homes")
        logins = {"before": median_login(libpam, known[:LOGINS])}
        figures = [
            host.run("google-authenticator, dry run", *homes, "--dry-run"),
            host.run("google-authenticator", *homes),
            host.run("google-authenticator, again", *homes),
        ]
        logins["of imported users"] = median_login(libpam, imported[:: options.count // LOGINS])
        figures.append(host.run("tokens, CSV", "token", "import", str(csv)))
        figures.append(host.run("tokens, PSKC", "token", "import", str(pskc)))
        logins["after all imports"] = median_login(libpam, known[LOGINS:])
    finally:
        product.close()
    return figures, logins


def main() -> int:
    """Run, print, and return the exit status."""
    options = parse_options(sys.argv[1:])
    if os.geteuid() != 0 or not options.prefix.is_dir() or options.count < LOGINS:
        sys.stderr.write(f"imports: needs root, an installed prefix, at least {LOGINS} users\n")
        return 2
    directory = Path(tempfile.mkdtemp(prefix="import-bench-", dir=options.state))
    directory.chmod(0o755)
    try:
        machine = describe_machine(directory, "none needed")
        figures, logins = measure(options, directory)
    except BenchmarkError as error:
        sys.stderr.write(f"imports: {error}\n")
        return 1
    finally:
        shutil.rmtree(directory)
    lines = [f"{machine.cpu}, {machine.cores} cores, {machine.system}, {machine.file_system}"]
    lines += [f"{options.count} users' files, and tokens of each file", ""]
    lines += [
        f"{one.what:32} {one.seconds:7.1f} s  {one.processor_seconds:7.1f} s processor  "
        f"{one.peak_mib:6.0f} MiB   {one.said}"
        for one in figures
    ]
    lines += ["", *(f"a login {when}: {value:.2f} ms" for when, value in logins.items())]
    sys.stdout.write("\n".join([*lines, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
