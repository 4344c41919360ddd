# SPDX-License-Identifier: Apache-2.0
"""The house: imports point down, there are no cycles, and a login on demand imports little."""

import ast
import graphlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles import REPOSITORY

PACKAGE = REPOSITORY / "pam_mfa"
SPDX = "# SPDX-License-Identifier: Apache-2.0\n"
# From the ground up; a room imports rooms of lower floors, and itself.
FLOORS = (
    ("", "errors", "secret", "libyaml"),
    ("document", "oath", "wire", "pam", "ssh_wire", "pam_services", "qr_code"),
    ("sshsig", "ssh_agent"),
    ("ssh_keys",),
    ("ssh_attestation", "ssh_possession"),
    ("hardware", "host", "host_groups", "module_line"),
    ("tokens",),
    ("pskc", "token_csv"),
    ("lockout", "mfa_age"),
    ("policy",),
    ("devices",),
    ("audit",),
    ("store", "actor"),
    ("factors",),
    ("verification",),
    ("enabling", "key_models"),
    ("paper_enabling", "key_enabling", "ssh_key_enabling", "statuses", "mfa_sessions"),
    ("lifecycle",),
    (
        "enrolling",
        "key_enrolling",
        "token_stock",
        "seal_rotation",
        "listing",
        "census",
        "importing",
        "moving",
    ),
    ("login_words",),
    ("next_login", "report", "would_refuse"),
    ("explanation", "forecast", "audit_reading"),
    ("audit_shipping",),
    ("switching",),
    ("doctor",),
    ("verifier",),
    ("self_service",),
    ("cli",),
)
RANKS = {room: rank for rank, rooms in enumerate(FLOORS) for room in rooms}
# Each of these costs a login on demand more than the code's own verification.
HEAVY = (
    "asyncio", "dataclasses", "inspect", "click", "rich", "segno", "argparse", "ctypes", "pam",
    "fido2", "pyudev", "threading", "psycopg", "concurrent",
)  # fmt: skip
# What brings devices in, or reads the audit log, has no place in a login.
IMPORTS = ("importing", "audit_reading", "audit_shipping")


def module_of(path: Path) -> str:
    """Return a file's module name."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module: str) -> Iterator[str]:
    """Go through the modules of this package that a module imports, anywhere in its text."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES:
                    yield inner
                elif node.module in MODULES:
                    yield node.module


def imported_names(node: ast.AST) -> list[str]:
    """Return the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def room_of(module: str) -> str:
    """Return the room that a module belongs to; "" for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def test_every_room_has_a_floor() -> None:
    """No module is outside the order that is held here."""
    assert {room_of(module) for module in MODULES} <= set(RANKS)


@pytest.mark.parametrize("module", list(MODULES))
def test_imports_point_down(module: str) -> None:
    """A module imports from lower floors and from its own room only."""
    room = room_of(module)
    wrong = [
        name
        for name in imports_of(module)
        if room_of(name) != room and RANKS[room_of(name)] >= RANKS[room]
    ]
    assert [] == wrong


def test_no_cycles() -> None:
    """No module imports itself, by whatever way."""
    graph = {module: set(imports_of(module)) for module in MODULES}
    assert len(MODULES) == len(tuple(graphlib.TopologicalSorter(graph).static_order()))


def loaded_by(statement: str) -> list[str]:
    """Return the modules that an interpreter has loaded after a statement."""
    program = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded: list[str] = json.loads(done.stdout)
    return loaded


@pytest.mark.parametrize("module", ["pam_mfa.verifier.once", "pam_mfa.verifier.__main__"])
def test_login_on_demand_imports_little(module: str) -> None:
    """What a verifier for one login loads has nothing heavy in it that it does not need."""
    loaded = set(loaded_by(f"import {module}")) - set(loaded_by("pass"))
    assert module in loaded
    unwanted = (*HEAVY, *(f"pam_mfa.{name}" for name in IMPORTS))
    assert [] == [name for name in unwanted if name in loaded]


def test_login_loads_no_listings() -> None:
    """What is told of users costs no login on demand its start-up time."""
    loaded = set(loaded_by("import pam_mfa.verifier.__main__, pam_mfa.verifier.once"))
    rooms = ("census", "host", "lifecycle", "listing", "next_login", "pam_services", "report")
    assert set() == {f"pam_mfa.{room}" for room in rooms} & loaded


def test_login_without_an_agent_loads_none() -> None:
    """What an ssh-agent is asked, and its signatures, cost nothing where there is none."""
    loaded = set(loaded_by("import pam_mfa.verifier.__main__, pam_mfa.verifier.once"))
    parts = ("ssh_agent", "sshsig", "ssh_wire", "verification.agent_signature")
    assert set() == {f"pam_mfa.{part}" for part in parts} & loaded


def test_policy_without_rules_loads_none() -> None:
    """Rules, and what they match by, cost a login on demand nothing where policy has none."""
    parts = ("rules", "conditions", "networks", "checking", "explaining")
    heavy = {"zoneinfo", *(f"pam_mfa.policy.{part}" for part in parts)}
    read = "from pam_mfa.policy import parse_policy; parse_policy(b'version: 1', 'p')"
    start = "import pam_mfa.verifier.__main__, pam_mfa.verifier.once"
    assert set() == heavy & set(loaded_by(f"{start}\n{read}"))


def test_one_room_talks_to_a_database() -> None:
    """Only the fleet's store imports psycopg, and nothing imports that before policy names it."""
    users = {
        module.rpartition(".")[0]
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in imported_names(node)
        if name.partition(".")[0] == "psycopg"
    }
    assert {"pam_mfa.store.postgresql"} == users
    everything = set(loaded_by("import pam_mfa.store.opening, pam_mfa.cli.__main__"))
    assert set() == {"psycopg", "pam_mfa.store.postgresql"} & everything


def test_only_one_room_opens_devices() -> None:
    """Only hardware/ imports what lists and opens devices: pyudev and fido2's HID part."""
    users = {
        room_of(module)
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in imported_names(node)
        if name.partition(".")[0] == "pyudev" or f"{name}.".startswith("fido2.hid.")
    }
    assert {"hardware"} == users


def test_finding_no_key_is_cheap() -> None:
    """Listing keys where none is attached loads neither pyudev nor fido2."""
    loaded = loaded_by("from pam_mfa.hardware import hotplug, node_opening, nodes")
    assert "pam_mfa.hardware.hotplug" in loaded
    assert not {"pyudev", "fido2", "ctypes", "logging"} & set(loaded)


def test_pure_modules_touch_no_disk() -> None:
    """What is pure imports neither the operating system nor clocks nor randomness."""
    pure = ("devices", "policy", "lockout", "wire", "oath", "document", "verification")
    files = [
        path
        for name in pure
        for path in (PACKAGE / f"{name}.py", *(PACKAGE / name).glob("*.py"))
        if path.exists()
    ]
    forbidden = {"os", "pathlib", "time", "random", "secrets", "socket", "subprocess", "sqlite3"}
    found = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found += [(path.name, each) for each in names if each.partition(".")[0] in forbidden]
    assert [] == found


def own_files(folder: Path) -> Iterator[Path]:
    """Go through the files of Python that are the project's, not what is made beside them."""
    for place, folders, names in os.walk(folder):
        # Not entered: a guest's files come and go there while this runs.
        folders[:] = set(folders) - {".venv", ".state", ".cache", "build"}
        yield from (Path(place, name) for name in names if name.endswith(".py"))


@pytest.mark.parametrize("folder", ["pam_mfa", "tests", "packaging"])
def test_license(folder: str) -> None:
    """Every file of Python begins with its licence, after the line that names an interpreter."""
    texts = {
        path: path.read_text("utf-8").removeprefix("#!/usr/bin/env python3\n")
        for path in own_files(REPOSITORY / folder)
    }
    assert texts
    assert [] == [path for path, text in texts.items() if text and not text.startswith(SPDX)]


def test_protocol_has_two_sides() -> None:
    """Only the daemon's own modules of the verifier import asyncio."""
    users = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import) and any(alias.name == "asyncio" for alias in node.names)
    }
    expected = {"committer", "companion", "connection", "far_store", "server", "__main__"}
    assert {f"pam_mfa.verifier.{name}" for name in expected} == users
