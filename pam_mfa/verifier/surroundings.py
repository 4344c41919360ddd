# SPDX-License-Identifier: Apache-2.0
"""What a verifier must not keep of whoever caused it to be started.

A verifier on demand is a grandchild of sudo or su, and so of the invoking user's shell: it would
run in that user's control group, which the user may freeze while the verifier holds the lock of
all commits, and with that user's priority, processors and limits.
"""

import contextlib
import os
import resource
from pathlib import Path

_GROUPS = ("/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/systemd/cgroup.procs")
_FREEZER = "/sys/fs/cgroup/freezer/cgroup.procs"  # of control groups version 1
_DESCRIPTORS = 1024
_STACK = 8 * 1024 * 1024  # bytes
_PROCESSORS = range(8192)


def leave_caller() -> None:
    """Take on a service's surroundings, as far as this host lets; as root, before dropping it.

    Each step is worth having without the others, so a container that forbids one is no reason
    to refuse a login.
    """
    os.umask(0o077)
    refuse_core()
    for group in (*_GROUPS, _FREEZER):
        with contextlib.suppress(OSError):
            Path(group).write_text("0", "ascii")
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("0", "ascii")
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, _PROCESSORS)
    for kind, limit in (
        (resource.RLIMIT_NOFILE, _DESCRIPTORS),
        (resource.RLIMIT_STACK, _STACK),
        # A user's `ulimit -f 0` must not keep sudo's wrong guesses from being counted.
        (resource.RLIMIT_FSIZE, resource.RLIM_INFINITY),
        (resource.RLIMIT_CPU, resource.RLIM_INFINITY),
        (resource.RLIMIT_NPROC, resource.RLIM_INFINITY),
        (resource.RLIMIT_MEMLOCK, resource.RLIM_INFINITY),
    ):
        _set_limit(kind, limit)


def _set_limit(kind: int, limit: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(kind, (limit, limit))
        return
    with contextlib.suppress(OSError, ValueError):  # a container may forbid to lift the hard one
        _, most = resource.getrlimit(kind)
        resource.setrlimit(kind, (most, most))


def refuse_core() -> None:
    """Leave no core file: with 0 the kernel would still feed a piped core_pattern."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
