# SPDX-License-Identifier: Apache-2.0
"""Inside the guest: runs the software key of /opt/security_key, and passes on what it is told.

Arguments are those of ``python3 -m security_key``, its control socket the first one. Says `ready`
on standard output when the key is there. Each line on standard input is a JSON list of words for
the key, each line on standard output its answer. Ends when standard input does.
"""

import json
import sys
import threading
from pathlib import Path

sys.path.insert(0, "/opt")

from security_key.__main__ import main
from security_key.control import tell


def pass_on(path: Path) -> None:
    """Tell the key what comes, and have it quit in the end."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(tell(path, *json.loads(line))) + "\n")
        sys.stdout.flush()
    tell(path, "quit")


if __name__ == "__main__":
    control = sys.argv.pop(1)
    threading.Thread(target=pass_on, args=(Path(control),)).start()
    sys.argv += ["--control", control]
    main()
