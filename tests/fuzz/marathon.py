# SPDX-License-Identifier: Apache-2.0
"""The long run of every fuzzer: a third of the time for each harness in C, one for the readers.

Inputs that reach code which the corpus does not are added to it. Exit status 1: there are findings.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harnesses import CORPUS, HARNESSES, build, fuzz, merge
from installed import REPOSITORY

EXAMPLES = 1500  # of each property, in one turn of about a minute


def fuzz_native(name: str, seconds: int) -> bool:
    """Fuzz one harness; return whether it found nothing."""
    place = Path(tempfile.mkdtemp(prefix=f"pam-mfa-fuzz-{name}-"))  # kept: a finding lies there
    new = place / "new"
    new.mkdir()
    program = build(HARNESSES[name], place)
    seed = random.randrange(1, 2**31)  # noqa: S311 - not a secret
    done = fuzz(program, new, CORPUS / name, seconds=seconds, seed=seed)
    merge(program, CORPUS / name, new)
    if done.returncode:
        sys.stderr.write(f"{done.stderr[-4000:]}\nThe input is in {place}\n")
    return done.returncode == 0


def fuzz_readers(seconds: int) -> bool:
    """Run the properties of the readers, with other examples each time, until the time is over."""
    end = time.monotonic() + seconds
    environment = {**os.environ, "FUZZ_EXAMPLES": str(EXAMPLES)}
    command = [sys.executable, "-m", "pytest", "-q", "tests/fuzz"]
    while time.monotonic() < end:
        done = subprocess.run(
            [*command, "--ignore=tests/fuzz/test_native.py"],
            env=environment, cwd=REPOSITORY, check=False,
        )  # fmt: skip
        if done.returncode:
            return False
    return True


def main() -> int:
    """Fuzz everything; exit 0 where nothing was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    seconds = max(1, int(parser.parse_args().minutes * 60 / (len(HARNESSES) + 1)))
    clean = [fuzz_native(name, seconds) for name in HARNESSES]
    clean.append(fuzz_readers(seconds))
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
