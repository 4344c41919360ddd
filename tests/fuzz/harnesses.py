# SPDX-License-Identifier: Apache-2.0
"""The native fuzzers: how they are built and run. libFuzzer, for the module is C and has no other.

The readers in Python are fuzzed by hypothesis and not by atheris: these are readers of structured
text, and what finds faults in them is a grammar, a shrunk example, and the same run every time.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from installed import REPOSITORY

NATIVE = REPOSITORY / "pam_mfa/native"
HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
_WRAPPED = (
    "calloc", "socket", "connect", "fcntl", "close", "setsockopt", "signalfd", "getrandom",
    "clock_gettime", "sendmsg", "poll", "recvmsg",
)  # fmt: skip
_FLAGS = (
    "-std=gnu11", "-g", "-O1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all",
    "-fsanitize=fuzzer,address,undefined", '-DPAM_MFAD="/nonexistent"',
)  # fmt: skip
_LONGEST_INPUT = 4096  # bytes


class Harness(NamedTuple):
    """One fuzzer, and the files of the module that it is linked with."""

    name: str
    sources: tuple[str, ...]
    wrapped: tuple[str, ...] = ()


HARNESSES = {
    one.name: one
    for one in (
        Harness("frame_reader", ("frame.c",)),
        Harness("relay", ("pam_mfa.c", "channel.c", "frame.c"), _WRAPPED),
    )
}


def build(harness: Harness, place: Path, spoil: Callable[[str], str] | None = None) -> Path:
    """Build a fuzzer in an empty folder; ``spoil`` changes the module's text before."""
    for source in (*NATIVE.glob("*.c"), *NATIVE.glob("*.h")):
        shutil.copy(source, place)
    if spoil is not None:
        for name in harness.sources:
            text = (place / name).read_text("ascii")
            (place / name).write_text(spoil(text), "ascii")
    program = place / harness.name
    wraps = [f"-Wl,--wrap={name}" for name in harness.wrapped]
    subprocess.run(
        ["clang", *_FLAGS, *wraps, f"-I{place}", HERE / "native" / f"{harness.name}.c",
         *(place / name for name in harness.sources), "-o", program],
        check=True, timeout=180,
    )  # fmt: skip
    return program


def fuzz(
    program: Path, *folders: Path, seconds: int, seed: int = 1
) -> "subprocess.CompletedProcess[str]":
    """Run a fuzzer over the inputs of these folders and new ones, which the first one gets."""
    command = [str(program), f"-max_total_time={seconds}", f"-seed={seed}"]
    return subprocess.run(
        [*command, f"-max_len={_LONGEST_INPUT}", "-timeout=10", "-close_fd_mask=0",
         f"-artifact_prefix={program.parent}/", *map(str, folders)],
        capture_output=True, text=True, check=False, timeout=seconds + 120,
    )  # fmt: skip


def merge(program: Path, corpus: Path, new: Path) -> None:
    """Add to a corpus what of new inputs reaches more of the code."""
    command = [str(program), "-merge=1", str(corpus), str(new)]
    subprocess.run(command, capture_output=True, check=True, timeout=600)
