"""fail.py HOW FILE: the last rank fails while the others wait for it.

Writes the moment of the failure to FILE (the monotonic clock is one for all processes).
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from thalweg.distributed import world


def raise_in_thread():
    def work():
        raise ValueError("a thread is out of luck")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    time.sleep(60)


def interrupt():
    raise KeyboardInterrupt


def raise_exception():
    raise ValueError("this rank is out of luck")


FAILURES = {
    "exception": raise_exception,
    "thread": raise_in_thread,
    "exit": lambda: sys.exit(7),
    "message": lambda: sys.exit("this rank gives up"),
    "interrupt": interrupt,
    "status": lambda: 9,  # for sys.exit(main()), which looks sys.exit up before world() is called
}


def main():
    comm = world()
    comm.barrier()
    status = None
    if comm.rank == comm.size - 1:
        Path(sys.argv[2]).write_text(str(time.monotonic()))
        status = FAILURES[sys.argv[1]]()
    else:
        comm.barrier()
    return status


if __name__ == "__main__":
    sys.exit(main())
