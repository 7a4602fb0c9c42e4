"""`python -m decagon_lake` is `decagon-lake`."""

from __future__ import annotations

import os
import subprocess
import sys

from ._binary import find_binary


def main() -> None:
    """Becomes the binary. Windows cannot replace a process, so there it waits for the binary's end."""
    command = [find_binary(), *sys.argv[1:]]
    if sys.platform != "win32":
        os.execv(command[0], command)
    try:
        sys.exit(subprocess.call(command))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
