"""Runs a program and prints its wall time, CPU time (with that of the processes it waits for) and peak memory as JSON.

    python -I -S measure.py OUTPUT PROGRAM ARGUMENT…     OUTPUT takes what the program prints

It is a process of its own, because Linux counts the memory of the process that starts a program as the program's, until
that has more of its own: this one has 10 MB. Of several processes, the peak is that of the largest.
"""

import os
import sys
import time


def main():
    output, *program = sys.argv[1:]
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    begin = time.monotonic()
    child = os.posix_spawnp(program[0], program, os.environ, file_actions=actions)
    _, status, used = os.wait4(child, 0)
    wall = time.monotonic() - begin
    print(f'{{"code": {os.waitstatus_to_exitcode(status)}, "wall_secs": {wall:.4f}, '
          f'"cpu_secs": {used.ru_utime + used.ru_stime:.4f}, "peak_bytes": {used.ru_maxrss * 1024}}}')


if __name__ == "__main__":
    main()
