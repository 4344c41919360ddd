# SPDX-License-Identifier: Apache-2.0
"""The real sshd in a private host: its configuration, its keys, its start and its stop.

sshd names its PAM service after argv[0], so it is started through a symlink whose name is its
service's own file in the private pam.d.
"""

import secrets
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from private_host import PATIENCE_SECONDS, PrivateHost

# Another program may take the free port before sshd does.
PORT_ATTEMPTS = 5
# What a test may override with a line of its own.
DEFAULTS = {
    "KbdInteractiveAuthentication": "yes",
    "LogLevel": "VERBOSE",
    "PasswordAuthentication": "no",
    "PermitRootLogin": "yes",
    "PrintLastLog": "no",
    "PrintMotd": "no",
    "UseDNS": "no",
}


class Sshd:
    """An sshd on loopback, with `pam` as its PAM stack; enter it as a context manager.

    `port` is where it listens, `service` its PAM service's name.
    """

    def __init__(
        self, host: PrivateHost, pam: str, *, config: Sequence[str] = (), service: str = ""
    ) -> None:
        """Describe the server; `config` holds lines of sshd_config, Match blocks last."""
        self._host = host
        self._pam = pam
        self._config = tuple(config)
        self._folder = host.root / f"sshd-{secrets.token_hex(4)}"
        self.service = service or self._folder.name
        self.port = 0
        self._program = self._folder / self.service

    def __enter__(self) -> Self:
        """Write the files, start sshd and wait until it listens."""
        self._folder.mkdir(mode=0o711)
        self._program.symlink_to("/usr/sbin/sshd")
        make_key(self._folder / "host_key")
        self._authorized_keys.mkdir(exist_ok=True)
        self._host.write_pam_service(self.service, self._pam)
        for _ in range(PORT_ATTEMPTS):
            self.port = _free_port()
            if self._start():
                return self
            if "Address already in use" not in self.log_text():
                break
        raise RuntimeError(f"sshd did not listen: {self.log_text()}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server; a session still open ends with the private host."""
        self._stop()

    def authorize(self, user: str, key: Path, *, options: str = "") -> None:
        """Let `user` authenticate with the private key in `key`, by its .pub file."""
        public_key = key.with_name(f"{key.name}.pub").read_text()
        with (self._authorized_keys / user).open("a") as file:
            file.write(f"{options} {public_key}" if options else public_key)

    def log_text(self) -> str:
        """Return sshd's own log; what PAM modules log is in the host's syslog_text()."""
        log = self._folder / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    @property
    def _authorized_keys(self) -> Path:
        """The folder of authorized keys, below /etc where sshd's StrictModes accepts it."""
        return self._host.etc / "ssh" / "authorized_keys"

    def _start(self) -> bool:
        """Start sshd on `port`; return whether it listens there."""
        (self._folder / "config").write_text(self._config_text())
        log = self._folder / "log"
        self._process = subprocess.Popen(
            self._host.command([self._program, "-D", "-f", self._folder / "config", "-E", log]),
            env=self._host.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._is_listening():
                return True
            time.sleep(0.005)
        self._stop()
        return False

    def _is_listening(self) -> bool:
        """Return whether sshd serves `port` and has written, soon after, how to end it."""
        pid_file = self._folder / "pid"
        listening = f"Server listening on 127.0.0.1 port {self.port}." in self.log_text()
        return listening and pid_file.exists() and pid_file.read_text().endswith("\n")

    def _stop(self) -> None:
        """End sshd itself, inside, and collect it."""
        self._host.run(["sh", "-c", 'kill "$(cat "$1")"', "sh", self._folder / "pid"], check=False)
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _config_text(self) -> str:
        """Return sshd_config: what the harness needs, the defaults, then the test's lines."""
        fixed = {
            "Port": str(self.port),
            "ListenAddress": "127.0.0.1",
            "HostKey": str(self._folder / "host_key"),
            "PidFile": str(self._folder / "pid"),
            "AuthorizedKeysFile": "/etc/ssh/authorized_keys/%u",
            "UsePAM": "yes",
            **({"PAMServiceName": self.service} if _names_its_service() else {}),
        }
        given = {line.split(maxsplit=1)[0].lower() for line in self._config if line.strip()}
        defaults = {word: value for word, value in DEFAULTS.items() if word.lower() not in given}
        settings = [f"{word} {value}" for word, value in (fixed | defaults).items()]
        return "\n".join([*settings, *self._config, ""])


def _names_its_service() -> bool:
    """Whether sshd takes its PAM service's name from its configuration (OpenSSH 9.8 and later)."""
    done = subprocess.run(
        ["/usr/sbin/sshd", "-T", "-o", "PAMServiceName=sshd"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    return "Bad configuration option" not in done.stderr


def make_key(path: Path) -> Path:
    """Make an Ed25519 key without a passphrase at `path`, its public half beside it as .pub."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path],
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE_SECONDS,
    )
    return path


def _free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
