# SPDX-License-Identifier: Apache-2.0
"""The verifier's sockets: whether somebody listens, and who may ask."""

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from pam_mfa.doctor.finding import Finding, fault, notice, ok, warning
from pam_mfa.doctor.view import View

SUBJECT = "daemon"
_PATIENCE = 2.0  # seconds
_EVERYBODY = 0o666


def check_sockets(view: View) -> Iterator[Finding]:
    """Look at the two sockets of pam-mfad."""
    start = "systemctl enable --now pam-mfad.socket pam-mfad-self.socket"
    for path, is_roots in ((view.layout.socket, True), (view.layout.self_socket, False)):
        about = view.stat(path)
        if about is None:
            who = "each login starts a verifier of its own, in about 60 ms" if is_roots else (
                "screen lockers and other callers that are not root are refused"
            )  # fmt: skip
            yield notice(SUBJECT, f"there is no {path}: {who}", start)
        elif not stat.S_ISSOCK(about.st_mode):
            yield fault(SUBJECT, f"{path} is no socket", f"Remove it; then {start}")
        else:
            yield from _check_socket(path, stat.S_IMODE(about.st_mode), is_roots=is_roots)


def _check_socket(path: Path, mode: int, *, is_roots: bool) -> Iterator[Finding]:
    if is_roots and mode & 0o077:
        yield warning(
            SUBJECT, f"{path} has the mode {mode:04o}: others can keep root's logins waiting",
            "systemctl restart pam-mfad.socket",
        )  # fmt: skip
    if not is_roots and mode & _EVERYBODY != _EVERYBODY:
        yield warning(SUBJECT, f"{path} has the mode {mode:04o}: users cannot verify themselves",
                      "systemctl restart pam-mfad-self.socket")  # fmt: skip
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(_PATIENCE)
        try:
            probe.connect(str(path))
        except OSError as error:
            yield warning(
                SUBJECT, f"nobody answers on {path}: {error.strerror or error}",
                "systemctl restart pam-mfad.socket pam-mfad-self.socket pam-mfad",
            )  # fmt: skip
            return
    yield ok(SUBJECT, f"the daemon listens on {path}")
