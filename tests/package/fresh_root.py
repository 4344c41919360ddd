# SPDX-License-Identifier: Apache-2.0
"""A fresh Debian in a directory, into which the package is installed by its real dpkg.

Owns making it, and running programs in it: in namespaces of their own, so that the machine's
accounts, processes and mounts are out of reach. Packages come from wherever the host's apt takes
Debian from.
"""

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pexpect
from installed import PERIOD, REPOSITORY, new_secret, totp, wait_for_step
from vm.root_tree import apt_sources

# What the package depends on, and what the tests look at it with.
PACKAGES = (
    *("systemd", "python3", "python3-apt", "debconf", "logrotate"),
    *("dbus", "polkitd", "pkexec", "pamtester"),
)
PATIENCE = 120.0  # seconds, on a loaded machine
FileState = tuple[str, str, int, int]  # content or target, mode, user, group
SERVICE = "demo"
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
_ENTER = """
root=$1; shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for folder in $SHOWN; do
  mkdir -p "$root$folder"
  mount --bind "$folder" "$root$folder"
done
unset SHOWN
exec chroot "$root" "$@"
"""


def make_base(path: Path) -> None:
    """Make a fresh root of the host's own release."""
    subprocess.run(
        ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
         f"--include={','.join(PACKAGES)}",
         "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
         "--dpkgopt=path-include=/usr/share/doc/pam-mfa/*", "", str(path), "-"],
        input="\n".join(apt_sources()), check=True, timeout=300, text=True, capture_output=True,
    )  # fmt: skip


def build_package(directory: Path) -> Path:
    """Build the package by packaging/build-deb; return its path."""
    done = subprocess.run(
        [REPOSITORY / "packaging/build-deb", directory],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return next(directory.glob("pam-mfa_*.deb"))


def make_newer(package: Path, directory: Path) -> Path:
    """Return the same package as of a newer version."""
    tree, newer = directory / "newer", directory / f"newer-{package.name}"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True, timeout=60)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines(keepends=True)
    changed = [f"{line.rstrip()}.1\n" if line.startswith("Version:") else line for line in lines]
    control.write_text("".join(changed))
    subprocess.run(
        ["dpkg-deb", "-Zgzip", "-z1", "-b", tree, newer],
        check=True,
        timeout=60,
        capture_output=True,
    )
    shutil.rmtree(tree)
    return newer


class FreshRoot:
    """One root, its own to change."""

    def __init__(self, base: Path) -> None:
        """Copy a root."""
        self.shown: list[Path] = []  # folders of the machine that programs in it see
        self.path = Path(tempfile.mkdtemp(prefix="pam-mfa-root-", dir="/var/tmp"))
        for entry in base.iterdir():
            # Whoever changes something in usr (dpkg, Python's compiler) replaces the file.
            how = "--link" if entry.name == "usr" else "--reflink=auto"
            subprocess.run(["cp", "-a", how, entry, self.path], check=True, timeout=PATIENCE)
        self.path.chmod(0o755)

    def remove(self) -> None:
        """Take it away; nothing is mounted in it, for mounts end with each program's namespace."""
        shutil.rmtree(self.path)

    def start(
        self, *command: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a program in it."""
        return subprocess.Popen(
            self._entering(*command),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**self._environment(), **(environment or {})},
        )  # fmt: skip

    def start_on_terminal(self, *command: str) -> "pexpect.spawn[str]":
        """Start a program in it on a terminal of its own."""
        program, *arguments = self._entering(*command)
        environment = self._environment() | {"TERM": "dumb"}
        return pexpect.spawn(
            program, arguments, env=environment, timeout=PATIENCE, encoding="utf-8", echo=False
        )

    def _entering(self, *command: str) -> list[str]:
        return [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts"),
            *("--propagation", "private", "sh", "-ec", _ENTER, "sh", str(self.path), *command),
        ]

    def _environment(self) -> dict[str, str]:
        return {**_ENVIRONMENT, "SHOWN": " ".join(map(str, self.shown))}

    def run(
        self,
        *command: str,
        stdin: str = "",
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it to its end."""
        process = self.start(*command, environment=environment)
        try:
            out, err = process.communicate(stdin, PATIENCE)
        finally:
            process.kill()
        assert not check or process.returncode == 0, f"{command}: {out}\n{err}"
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def install(self, package: Path) -> None:
        """Install a package's file."""
        shutil.copyfile(package, self.path / "package.deb")
        try:
            self.run("dpkg", "--install", "/package.deb")
        finally:
            (self.path / "package.deb").unlink()

    def enroll(self, user: str) -> str:
        """Enable a virtual device by codes of past time steps; return its secret."""
        wait_for_step(PERIOD / 3)
        secret = new_secret()
        codes = (totp(secret, -2), totp(secret, -1))
        options = ("--secret", "-", "--codes", *codes)
        self.run("pam-mfa", "enable", "virtual", user, *options, stdin=f"{secret}\n")
        return secret

    def write_service(self, name: str = SERVICE) -> Path:
        """Write a PAM service with the module, by its name alone, as on a real host."""
        path = self.path / "etc/pam.d" / name
        path.write_text("auth required pam_mfa.so\naccount required pam_permit.so\n")
        return path

    def try_login(self, user: str, code: str, service: str = SERVICE) -> int:
        """Return the exit status of a login through the root's own libpam and PAM files."""
        arguments = ("try", user, "--service", service)
        return self.run("pam-mfa", *arguments, stdin=f"{code}\n", check=False).returncode

    def files(self, directory: str) -> dict[str, FileState]:
        """Return what is in a directory: content or target, mode and owners by path."""
        return self.files_of(self.path / directory)

    @staticmethod
    def files_of(directory: Path) -> dict[str, FileState]:
        """Return the same of any directory."""
        return dict(_describe(directory))


def _describe(directory: Path) -> Iterator[tuple[str, FileState]]:
    for folder, folders, names in os.walk(directory):
        for name in (*folders, *names):
            path = Path(folder, name)
            about = path.lstat()
            content = str(path.readlink()) if path.is_symlink() else ""
            if stat.S_ISREG(about.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            key = str(path.relative_to(directory))
            yield key, (content, stat.filemode(about.st_mode), about.st_uid, about.st_gid)
