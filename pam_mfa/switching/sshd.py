# SPDX-License-Identifier: Apache-2.0
"""sshd's side of a switch: the drop-in file, its check by sshd itself, and the reload.

Owns what is asked of sshd; writes nothing under /etc. A candidate is tried by the host's own
``sshd -T`` on a copy of the configuration, before anything is touched.
"""

import contextlib
import enum
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.switching.sshd_blocks import CONNECTION, Block, find_blocks, isolate

# sshd takes the first value that it meets: the name sorts before those of clouds and vendors.
DROP_IN: Final = "etc/ssh/sshd_config.d/00-pam-mfa.conf"
_CONFIG = "etc/ssh/sshd_config"
_PATIENCE = 20.0  # seconds
_HEAD = "# Written by pam-mfa switch, and removed by: pam-mfa switch off sshd\n"
_COMMON = """UsePAM yes
KbdInteractiveAuthentication yes
# Password authentication answers every prompt of PAM with the password, the code's too.
PasswordAuthentication no
"""
_INCLUDE = re.compile(r"^(\s*include\s+)(.*)$", re.IGNORECASE)
_HOST_KEY = re.compile(r"^\s*hostkey\b", re.IGNORECASE)
_SEPARATION = Path("/run/sshd")  # of Debian's builds; others have theirs below /var/empty
_PROGRAMS = ("/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd")


class FirstFactor(enum.StrEnum):
    """What sshd asks for beside the code."""

    PASSWORD = "password"  # noqa: S105 - a word
    KEY = "key"


_METHODS = {
    FirstFactor.PASSWORD: "keyboard-interactive:pam",
    FirstFactor.KEY: "publickey,keyboard-interactive:pam",
}


def compose_drop_in(first: FirstFactor) -> bytes:
    """Return the drop-in file's content."""
    methods = f"AuthenticationMethods {_METHODS[first]}\n"
    # No user's authorized_keys may spare the touch of a security key.
    touch = "PubkeyAuthOptions touch-required\n" if first is FirstFactor.KEY else ""
    return f"{_HEAD}{_COMMON}{methods}{touch}".encode("ascii")


def is_drop_in(data: bytes) -> bool:
    """Whether a file is a drop-in of ours, perhaps edited."""
    return data.startswith(_HEAD.encode("ascii"))


def find_program() -> str | None:
    """Return sshd's path."""
    return next((one for one in _PROGRAMS if os.access(one, os.X_OK)), None)


def read_settings(
    root: Path, candidate: bytes | None = None, block: Block | None = None
) -> dict[str, str]:
    """Return what sshd would take from its configuration, word by word in lower case.

    Args:
        root: under which the configuration lies.
        candidate: the drop-in file that is to be; None: as it is now.
        block: the one Match block that is to count; None: none of them does.

    Raises:
        RefusedError: sshd does not take it, and says why.
        BrokenSystemError: there is no sshd, or it does not answer.
    """
    program = find_program()
    if program is None:
        raise BrokenSystemError(
            "there is no sshd on this host that could check its settings",
            hint="Install openssh-server.",
        )
    texts = isolate(_read_configuration(root, candidate), block)
    with tempfile.TemporaryDirectory(prefix="pam-mfa-sshd-") as scratch:
        copy = Path(scratch) / "ssh"
        _write_configuration(texts, root, copy)
        arguments = [program, "-T", "-C", CONNECTION, "-f", str(copy / "sshd_config")]
        if not list((root / "etc/ssh").glob("ssh_host_*_key")) or root != Path("/"):
            arguments += ["-h", _make_host_key(Path(scratch))]
        with _separation_directory():
            done = _run(arguments)
    if done.returncode != 0:
        words = done.stderr.strip().replace(str(copy), "/etc/ssh") or "it gives no reason"
        raise RefusedError(
            f"sshd does not take its configuration: {words.splitlines()[-1]}",
            hint="See: sshd -t",
        )
    pairs = (line.partition(" ") for line in done.stdout.splitlines())
    return {word.lower(): value.strip() for word, _, value in pairs}


def list_blocks(root: Path) -> list[Block]:
    """Return the Match blocks of the configuration as it is.

    Raises:
        RefusedError: it cannot be read.
    """
    return find_blocks(_read_configuration(root, None))


def find_first_factor(settings: dict[str, str]) -> FirstFactor:
    """Return what logins need by the settings as they are: a password where that may be typed."""
    methods = settings.get("authenticationmethods", "any")
    if methods not in ("any", ""):
        is_key = all(one.startswith("publickey") for one in methods.split())
        return FirstFactor.KEY if is_key else FirstFactor.PASSWORD
    typed = settings.get("passwordauthentication"), settings.get("kbdinteractiveauthentication")
    return FirstFactor.PASSWORD if "yes" in typed else FirstFactor.KEY


def require_effect(root: Path, candidate: bytes | None, first: FirstFactor) -> None:
    """Make sure that the drop-in counts, as sshd itself reads it.

    Raises:
        RefusedError: sshd does not take it, or another file overrides it or does not include it.
    """
    settings = read_settings(root, candidate)
    for word, value in _wanted(first).items():
        if settings.get(word) != value:
            raise RefusedError(
                f"sshd would go on with {word} {settings.get(word, '(nothing)')}, "
                f"whatever /{DROP_IN} says; it needs {value}",
                hint="An earlier line overrides it, or /etc/ssh/sshd_config has no line "
                "'Include /etc/ssh/sshd_config.d/*.conf' at its beginning. Nothing was changed.",
            )


def find_exceptions(root: Path, candidate: bytes, first: FirstFactor) -> list[str]:
    """Return a sentence for each Match block that goes on with something else for whom it fits.

    Raises:
        RefusedError: sshd does not take its configuration.
    """
    found = []
    for block in list_blocks(root):
        settings = read_settings(root, candidate, block)
        other = [
            f"{word} {settings.get(word, '(nothing)')}"
            for word, value in _wanted(first).items()
            if settings.get(word) != value
        ]
        if other:
            found.append(
                f"for whom 'Match {block.criteria}' fits (/etc/ssh/{block.file}, line "
                f"{block.number}) sshd goes on with {', '.join(other)}"
            )
    return found


def _wanted(first: FirstFactor) -> dict[str, str]:
    return {
        "usepam": "yes",
        "kbdinteractiveauthentication": "yes",
        "passwordauthentication": "no",
        "authenticationmethods": _METHODS[first],
    }


def reload_sshd(root: Path) -> str:
    """Have the running sshd read its settings again; return a sentence on what was done."""
    if root != Path("/"):
        return "sshd was not reloaded: these files are another root's."
    if Path("/run/systemd/system").is_dir():
        for unit in ("ssh.service", "sshd.service"):
            if _run(["systemctl", "--quiet", "is-active", unit]).returncode == 0:
                done = _run(["systemctl", "reload", unit])
                if done.returncode == 0:
                    return "sshd was reloaded."
                return f"sshd could not be reloaded; run: systemctl reload {unit}"
    pid = _find_listener()
    if pid is None:
        return "sshd does not run, so there was nothing to reload."
    os.kill(pid, signal.SIGHUP)
    return "sshd was reloaded."


def _find_listener() -> int | None:
    """Return the process id of the listening sshd, by its pid file and its own name."""
    try:
        pid = int(Path("/run/sshd.pid").read_text("ascii"))
        name = Path(f"/proc/{pid}/comm").read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return pid if name == "sshd" else None


def _read_configuration(root: Path, candidate: bytes | None) -> dict[Path, str]:
    """Return the texts of sshd's files, by their paths below /etc/ssh."""
    try:
        texts = {
            path.relative_to(root / "etc/ssh"): path.read_text("utf-8", "surrogateescape")
            for path in _config_files(root)
        }
    except OSError as error:
        raise RefusedError(
            f"sshd's configuration under {root / 'etc/ssh'} cannot be read: {error.strerror}"
        ) from error
    if candidate is not None:
        texts[Path(DROP_IN).relative_to("etc/ssh")] = candidate.decode("ascii")
    return texts


def _write_configuration(texts: Mapping[Path, str], root: Path, copy: Path) -> None:
    """Write a configuration, with its includes pointing into the copy."""
    for name, text in texts.items():
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        lines = [_redirect(line, root, copy) for line in text.splitlines()]
        target.write_text("\n".join([*lines, ""]), "utf-8", "surrogateescape")


def _config_files(root: Path) -> Sequence[Path]:
    directory = root / "etc/ssh"
    return [root / _CONFIG, *sorted(directory.glob("*.d/*")), *sorted(directory.glob("*.conf"))]


def _redirect(line: str, root: Path, copy: Path) -> str:
    """Point an include into the copy, and leave another root's host keys out."""
    if root != Path("/") and _HOST_KEY.match(line):
        return ""
    match = _INCLUDE.match(line)
    if match is None:
        return line
    words = [_redirect_word(word.strip('"'), copy) for word in match[2].split()]
    return match[1] + " ".join(words)


def _redirect_word(word: str, copy: Path) -> str:
    if word.startswith("/etc/ssh/"):
        return str(copy / word.removeprefix("/etc/ssh/"))
    return word if word.startswith(("/", "~")) else str(copy / word)


@contextlib.contextmanager
def _separation_directory() -> Iterator[None]:
    """Give sshd the directory that its service makes at each start, where it does not run."""
    is_made = False
    with contextlib.suppress(OSError):
        _SEPARATION.mkdir(mode=0o755)
        is_made = True
    try:
        yield
    finally:
        if is_made:
            with contextlib.suppress(OSError):
                _SEPARATION.rmdir()


def _make_host_key(scratch: Path) -> str:
    program = shutil.which("ssh-keygen") or "/usr/bin/ssh-keygen"
    path = scratch / "host_key"
    _run([program, "-q", "-t", "ed25519", "-N", "", "-f", str(path)])
    return str(path)


def _run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - fixed programs, and paths of our own
            arguments, capture_output=True, text=True, timeout=_PATIENCE, check=False,
            stdin=subprocess.DEVNULL, errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokenSystemError(f"{arguments[0]} does not answer: {error}") from error
