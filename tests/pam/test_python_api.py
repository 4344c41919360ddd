# SPDX-License-Identifier: Apache-2.0
"""The README's example of the Python API, run as it stands there."""

import re
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import REPOSITORY, DataRoot, totp, wait_for_step


@pytest.fixture
def example(tmp_path: Path, root: DataRoot) -> Iterator[subprocess.Popen[str]]:
    """Run the example as the README says, under a root of its own."""
    _, _, section = (REPOSITORY / "README.md").read_text("utf-8").partition("\n## From Python\n")
    (text,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(text)
    with subprocess.Popen(
        ["/usr/bin/python3", script, root.path],
        env={"PYTHONPATH": f"{root.prefix}/lib/python", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield process
        process.kill()


def test_example(example: subprocess.Popen[str], root: DataRoot) -> None:
    """It enables a device by two codes of oathtool, lists it, resyncs it and takes it away."""
    assert example.stdin is not None
    assert example.stdout is not None
    wait_for_step(10)
    uri = urllib.parse.urlsplit(example.stdout.readline().strip())
    (secret,) = urllib.parse.parse_qs(uri.query)["secret"]
    for step in (-2, -1, 100, 101):
        example.stdin.write(f"{totp(secret, step)}\n")
    example.stdin.close()
    lines = example.stdout.read().splitlines()
    assert example.wait(60) == 0
    prompts = "First code: Second code: "
    assert lines[:3] == [
        f"{prompts}enabled virtual/alice/phone", "phone None 0", "locked until None",
    ]  # fmt: skip
    assert lines[3].startswith("Code: Next code: drift 10")
    assert lines[4].startswith("alice would have no MFA device left")
    assert lines[5:] == ["left: ()"]
    events = [
        root.audit(name)[0]["caller_uid"]
        for name in ("EnableMfaDevice", "ResyncMfaDevice", "DeactivateMfaDevice")
    ]
    assert events == [0, 0, 0]


def test_process_gives_root_up(root: DataRoot) -> None:
    """A process that has opened the devices is not root any more, and cannot be again."""
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from pam_mfa.errors import RefusedError\n"
        "from pam_mfa.lifecycle import open_lifecycle\n"
        "root = Path(sys.argv[1])\n"
        "with open_lifecycle(root) as mfa:\n"
        "    print(mfa.users(), 0 in os.getresuid() + os.getresgid(), os.getgroups())\n"
        "try:\n"
        "    os.setuid(0)\n"
        "except PermissionError:\n"
        "    print('no way back')\n"
        "try:\n"
        "    with open_lifecycle(root):\n"
        "        pass\n"
        "except RefusedError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", program, root.path],
        env={"PYTHONPATH": f"{root.prefix}/lib/python", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "[] False []\nno way back\nonly root may do this\n"
