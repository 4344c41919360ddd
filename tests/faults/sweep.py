# SPDX-License-Identifier: Apache-2.0
"""One login for each of many ways to make a verifier fail, and a look at what each left behind.

Two at a time, each with a data root of its own: most of the time is start-up.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from host_program import Status
from serving import wait_until_gone
from strained import Strained, straining
from system_calls import tracing

_LANES = 2
Command = Sequence[str]
# What a host may hear of a verifier that fails; a denial is for codes that were judged.
ENDS = frozenset((Status.SUCCESS, Status.AUTH_ERR, Status.AUTHINFO_UNAVAIL))


def record_calls(prefix: Path, trace: Path) -> None:
    """Write down every system call of the verifier of one login."""
    with straining(prefix) as strained:
        inside = strained.root.path / "trace"
        strained.strain(*tracing(inside))
        assert strained.log_in().status == Status.SUCCESS
        wait_until_gone(strained.root)
        trace.write_bytes(inside.read_bytes())


def try_each(prefix: Path, commands: Sequence[Command]) -> Counter[int]:
    """Log in under each command, and see that nothing but that login was lost.

    Returns:
        how often each status was told.
    """

    def fail(strained: Strained, command: Command) -> int:
        strained.strain(*command)
        return strained.log_in().status

    return sweep(prefix, commands, fail)


def sweep(
    prefix: Path, commands: Sequence[Command], fail: Callable[[Strained, Command], int]
) -> Counter[int]:
    """Have a login fail in each way, and see that nothing but that login was lost."""

    def walk(share: Sequence[Command]) -> list[int]:
        with straining(prefix) as strained:
            return [_try(strained, command, fail) for command in share]

    with ThreadPoolExecutor(_LANES) as pool:
        shares = [commands[lane::_LANES] for lane in range(_LANES)]
        return Counter(status for statuses in pool.map(walk, shares) for status in statuses)


def _try(strained: Strained, command: Command, fail: Callable[[Strained, Command], int]) -> int:
    before = strained.accepted()
    status = fail(strained, command)
    try:
        assert status in ENDS
        strained.require_whole(before, was_let_in=status == Status.SUCCESS)
    except AssertionError as error:
        raise AssertionError(f"after {' '.join(command)}, which told {status}: {error}") from error
    return status
