# SPDX-License-Identifier: Apache-2.0
"""PyYAML, without the regular expressions that only its own reader needs.

PyYAML compiles them when it is imported, which is a sixth of all that a login on demand takes for
its imports, and libyaml reads a file of ours without one of them. So they are compiled when they
are first used. Whoever needs YAML imports it from here.
"""

import re
from typing import Any


class _Late:
    """A regular expression that is compiled when it is first used."""

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self._pattern, self._flags = pattern, flags

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever an expression has
        found = getattr(re.compile(self._pattern, self._flags), name)
        setattr(self, name, found)
        return found


_compile = re.compile
re.compile = _Late  # type: ignore[assignment]
try:
    import yaml
finally:
    re.compile = _compile

__all__ = ["yaml"]
