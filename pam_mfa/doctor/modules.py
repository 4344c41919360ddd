# SPDX-License-Identifier: Apache-2.0
"""The module's file: where PAM looks for it, whether it loads, and whose verifier it starts."""

import re
from collections.abc import Iterator
from pathlib import Path

from pam_mfa import __version__
from pam_mfa.doctor.finding import Finding, fault, notice, ok, warning
from pam_mfa.doctor.view import View
from pam_mfa.switching.bypasses import MODULE
from pam_mfa.switching.module_path import find_fault, find_modules

SUBJECT = "module"
_PROGRAM = re.compile(rb"/[\x21-\x7e]{1,400}/pam-mfad(?=\0)")
_VERSION = re.compile(r'^__version__\s*=\s*"([^"]+)"', re.MULTILINE)


def check_modules(view: View) -> Iterator[Finding]:
    """Look at each file of the module, and at each that a PAM line names."""
    paths = [*find_modules(view.root), *_named(view)]
    known = list(dict.fromkeys(paths))
    if not known:
        yield fault(SUBJECT, f"there is no {MODULE}", "Install it: packaging/install.")
    for path in known:
        yield from _check_module(view, path)
    names = {line.module for one in view.asking for line in one.lines_of("auth", MODULE)}
    if MODULE in names and not any("opt/pam-mfa" not in str(path) for path in known):
        yield fault(
            SUBJECT, f"a PAM line names {MODULE} without a path, and PAM has no such module",
            f"Give its path in the line: /opt/pam-mfa/lib/security/{MODULE}",
        )  # fmt: skip


def _named(view: View) -> Iterator[Path]:
    for service in view.asking:
        for line in service.lines_of("auth", MODULE):
            if line.module.startswith("/"):
                yield view.root / line.module[1:]


def _check_module(view: View, path: Path) -> Iterator[Finding]:
    wrong = find_fault(path, is_loaded=view.is_host)
    if wrong:
        yield fault(SUBJECT, f"{path} {wrong}", "Install it anew; PAM refuses who comes to it.")
        return
    match = _PROGRAM.search(path.read_bytes())
    if match is None:
        yield warning(SUBJECT, f"{path} names no verifier", "Install it anew.")
        return
    program = view.root / match[0].decode("ascii")[1:]
    if view.stat(program) is None:
        yield fault(
            SUBJECT, f"{path} starts {program}, which is not there",
            "Install it anew; where no daemon listens, every login is refused.",
        )  # fmt: skip
        return
    yield _check_version(view, path, program)


def _check_version(view: View, path: Path, program: Path) -> Finding:
    library = program.parent.parent / "lib/python/pam_mfa/__init__.py"
    found = _VERSION.search(view.read_text(library))
    if found is None:
        return notice(SUBJECT, f"{path} loads; of which version its verifier is, is not known")
    if found[1] != __version__:
        return warning(
            SUBJECT, f"{path} starts version {found[1]}, and this command is {__version__}",
            "Run the command of the same installation, or install that anew.",
        )  # fmt: skip
    return ok(SUBJECT, f"{path} loads, and its verifier is of this version ({__version__})")
