# SPDX-License-Identifier: Apache-2.0
"""The RPM package, built here to look at, its SELinux module, and its profile for authselect."""

import re
import subprocess
from pathlib import Path

import pytest
from installed import REPOSITORY

from package.fresh_root import PATIENCE

AUTHSELECT = REPOSITORY / "packaging/rpm/authselect"
SELINUX = REPOSITORY / "packaging/selinux"
PLACES = (
    "/usr/lib64/security/pam_mfa.so", "/usr/bin/pam-mfa", "/usr/sbin/pam-mfad",
    "/usr/sbin/pam-mfa-selfd", "/usr/lib/systemd/system/pam-mfad.socket",
    "/usr/lib/udev/rules.d/71-pam-mfa.rules", "/usr/lib/sysusers.d/pam-mfa.conf",
    "/usr/lib/tmpfiles.d/pam-mfa.conf", "/usr/share/selinux/packages/pam_mfa.pp",
    "/usr/share/authselect/vendor/pam-mfa/system-auth", "/usr/share/man/man8/pam_mfa.8.gz",
    "/usr/share/man/man5/pam_mfa.policy.5.gz", "/usr/share/man/man1/pam-mfa.1.gz",
    "/usr/share/bash-completion/completions/pam-mfa", "/usr/share/zsh/site-functions/_pam-mfa",
)  # fmt: skip


def query(package: Path, *arguments: str) -> str:
    """Return what rpm says of a package's file."""
    done = subprocess.run(
        ["rpm", "--query", "--nosignature", *arguments, "--package", package],
        capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    return done.stdout


@pytest.fixture(scope="module")
def rpm(scratch: Path) -> Path:
    """Build the package by packaging/build-rpm."""
    subprocess.run(
        [REPOSITORY / "packaging/build-rpm", scratch / "rpm"],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return next((scratch / "rpm").glob("pam-mfa-*.rpm"))


def test_everything_is_in_its_place(rpm: Path) -> None:
    """Programs, module, units, SELinux module and pages are where Fedora looks; all is root's."""
    assert set(PLACES) - set(query(rpm, "--list").split("\n")) == set()
    rows = query(rpm, "--queryformat", r"[%{FILEUSERNAME} %{FILEGROUPNAME} %{FILEMODES:octal}\n]")
    modes = {tuple(row.split()) for row in rows.splitlines()}
    assert {row[:2] for row in modes} == {("root", "root")}
    assert not any(int(mode, 8) & 0o7022 for _, _, mode in modes if not mode.startswith("12"))


def test_configuration_survives_upgrades(rpm: Path) -> None:
    """The policy and the PAM file are configuration, which an upgrade leaves as it is."""
    configuration = query(rpm, "--configfiles").split()
    assert {"/etc/pam_mfa/policy.yaml", "/etc/pam.d/pam-mfa"} <= set(configuration)


def test_scripts_are_sound_and_delete_no_devices(rpm: Path) -> None:
    """What runs at its installation and removal is sound shell, and keeps users' devices."""
    for tag in ("PREIN", "POSTIN", "PREUN", "POSTUN"):
        script = query(rpm, "--queryformat", f"%{{{tag}}}")
        subprocess.run(["sh", "-n"], input=script, text=True, check=True, timeout=PATIENCE)
        assert "%{" not in script
        assert not re.search(r"\brm\b|userdel", script)


def test_units_find_their_program(rpm: Path, tmp_path: Path) -> None:
    """The units start what the package installs, and nothing of an installation from source."""
    package = subprocess.run(["rpm2cpio", rpm], check=True, capture_output=True, timeout=PATIENCE)
    subprocess.run(
        ["cpio", "--extract", "--make-directories", "--quiet"],
        input=package.stdout, cwd=tmp_path, check=True, timeout=PATIENCE,
    )  # fmt: skip
    units = sorted((tmp_path / "usr/lib/systemd/system").iterdir())
    texts = "".join(unit.read_text() for unit in units)
    assert "/opt/" not in texts
    programs = re.findall(r"^ExecStart=/(\S+)$", texts, re.MULTILINE)
    assert len(programs) == 2
    assert all((tmp_path / program).stat().st_mode & 0o111 for program in programs)


def test_selinux_module_compiles(tmp_path: Path) -> None:
    """The policy module compiles by checkmodule; each file that it labels has a type of its own."""
    compiled, packed = tmp_path / "pam_mfa.mod", tmp_path / "pam_mfa.pp"
    policy, contexts = SELINUX / "pam_mfa.te", SELINUX / "pam_mfa.fc"
    for command in (
        f"checkmodule -M -m -o {compiled} {policy}",
        f"semodule_package -o {packed} -m {compiled} -f {contexts}",
    ):
        subprocess.run(command.split(), check=True, capture_output=True, timeout=PATIENCE)
    assert packed.stat().st_size > compiled.stat().st_size
    labels = set(re.findall(r":object_r:(\w+):", (SELINUX / "pam_mfa.fc").read_text()))
    types = re.findall(r"^type (pam_mfa\w+);$", (SELINUX / "pam_mfa.te").read_text(), re.MULTILINE)
    assert labels == set(types) - {"pam_mfad_t"}


@pytest.mark.parametrize("name", ["system-auth", "password-auth"])
def test_authselect_feature(name: str) -> None:
    """Only the feature asks the module, and whatever has checked the password jumps to it."""
    lines = [
        line for line in (AUTHSELECT / name).read_text().splitlines() if line.startswith("auth ")
    ]
    ours = next(index for index, line in enumerate(lines) if "pam_mfa.so" in line)
    assert lines[ours].endswith('{include if "with-mfa"}')
    jumps = {index: re.search(r"success=(\d)", line) for index, line in enumerate(lines)}
    assert {index + 1 + int(jump[1]) for index, jump in jumps.items() if jump} == {ours}
    assert "sufficient" not in "".join(lines)


def test_authselect_features_are_told() -> None:
    """Each feature that a template asks for is in the profile's README, and the other way round."""
    used = {
        feature
        for path in AUTHSELECT.iterdir()
        for feature in re.findall(r'if "([a-z-]+)"', path.read_text())
    }
    readme = (AUTHSELECT / "README").read_text()
    assert used == set(re.findall(r"^([a-z-]+)::$", readme, re.MULTILINE))
