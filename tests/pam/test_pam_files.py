# SPDX-License-Identifier: Apache-2.0
"""PAM service files beside real libpam: what we read in them is what libpam does with them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import DataRoot

from pam_mfa.pam_services import parse_service

# MODULE stands for a module, FILE for a file that is included.
FORMS = {
    "plain": "auth required MODULE",
    "capitals": "AUTH Required MODULE",
    "dash": "-auth required MODULE",
    "tabs": "\tauth\t required\tMODULE\t",
    "brackets": "auth [success=ok default=bad] MODULE",
    "spaced brackets": "auth [ success = ok  default = bad ] MODULE",
    "tight brackets": "auth [success=ok default=bad]MODULE",
    "bracketed word": "auth [required] MODULE",
    "comment behind": "auth required MODULE # more",
    "comment close behind": "auth required MODULE# more",
    "comment before": "# auth required x\nauth required MODULE",
    "commented out": "#auth required MODULE\nauth required pam_permit.so",
    "continued": "auth \\\n required \\\n MODULE",
    "comment in a continued line": "auth \\\n# x\n required MODULE",
    "empty line in a continued line": "auth \\\n\n required MODULE",
    "comment continued": "auth required pam_permit.so # x \\\nauth required MODULE",
    "space behind a backslash": "auth \\ \n required MODULE",
    "other phase": "account required MODULE\nauth required pam_permit.so",
    "include": "auth include FILE",
    "include, capitals": "auth INCLUDE FILE",
    "include of another phase": "account include FILE\nauth required pam_permit.so",
    "substack": "auth substack FILE",
    "include of everything": "@include FILE",
    "nothing included": "auth include nothing",
    "everything of nothing": "@include nothing",
    "include itself": "auth include demo",
    "no type": "autj required MODULE",
    "no module": "auth required",
    "cut": "auth required MODULE \\",
    "only the other service": "account required pam_permit.so",
    "spaces": "  ",
}
INCLUDED = "auth required MODULE\naccount required MODULE\n"


@pytest.fixture(scope="module")
def root(prefix: Path) -> Iterator[DataRoot]:
    """Share a data root and its daemon: these tests leave nothing in it."""
    data = DataRoot(prefix)
    with data.daemon():
        yield data
    data.remove()


def log_in(root: DataRoot, form: str, module: str) -> tuple[bool, bool]:
    """Run a service of this form with a module; return whether it lets in, and asks for a code."""
    others = "auth required MODULE\naccount required pam_permit.so\n"
    for name, text in (("demo", FORMS[form]), ("included", INCLUDED), ("other", others)):
        filled = text.replace("MODULE", module).replace("FILE", f"{root.services}/included")
        (root.services / name).write_text(f"{filled}\n")
    done = root.command(
        "try", "nobody", "--service", "demo", "--pam-dir", str(root.services),
        stdin="000000\n" * 9, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode == 0, "Verification code:" in done.stdout


@pytest.mark.parametrize("form", FORMS)
def test_module_is_reached_where_it_is_found(root: DataRoot, form: str) -> None:
    """Real libpam comes to the module, or refuses the file, exactly where we say so."""
    permitted, _ = log_in(root, form, "pam_permit.so")
    _, asked = log_in(root, form, root.module)
    service = parse_service("demo", lambda name: (root.services / name).read_text())
    found = service.lines_of("auth", "pam_mfa.so")
    assert (permitted, asked) == (not service.faults, bool(found) and not service.faults)
