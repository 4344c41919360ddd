# SPDX-License-Identifier: Apache-2.0
"""The installed manual pages and completion, by the programs that show them."""

import subprocess

from installed import REPOSITORY

from package.fresh_root import PATIENCE, FreshRoot


def test_pages_are_clean(installed: FreshRoot) -> None:
    """Neither mandoc nor man has anything to say of a page."""
    pages = [
        page for page in (installed.path / "usr/share/man").rglob("*pam[-_]mfa*.gz")
        if not page.is_symlink()
    ]  # fmt: skip
    assert len(pages) == 5
    for page in pages:
        lint = subprocess.run(
            ["mandoc", "-Tlint", "-Wwarning", page],
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
        shown = subprocess.run(
            ["man", "--warnings", "--local-file", page],
            capture_output=True, text=True, check=True, timeout=PATIENCE,
        )  # fmt: skip
        assert (lint.stdout, lint.stderr, shown.stderr) == ("", "", "")


def test_bash_completes_commands(installed: FreshRoot) -> None:
    """The installed completion and program answer what bash asks at the Tab key."""
    answer = installed.run(
        "env", "_PAM_MFA_COMPLETE=bash_complete", "COMP_WORDS=pam-mfa en", "COMP_CWORD=1", "pam-mfa"
    )
    assert answer.stdout == "plain,enable\n"
    script = installed.path / "usr/share/bash-completion/completions/pam-mfa"
    subprocess.run(["bash", "-n", script], check=True, timeout=PATIENCE)


def test_scripts_of_the_package_are_sound_shell() -> None:
    """Every shell script of packaging/ is one that sh can read."""
    scripts = [
        path for path in (REPOSITORY / "packaging").rglob("*")
        if path.is_file() and path.read_bytes().startswith(b"#!/bin/sh\n")
    ]  # fmt: skip
    assert len(scripts) >= 8
    for script in scripts:
        subprocess.run(["sh", "-n", script], check=True, timeout=PATIENCE)
