"""Programs whose wall clock is ahead or behind, by libfaketime."""

import glob

from servers import program


def faked_time(folder, offset):
    """What comes before a command, and the file that says by how many seconds its clock is ahead: ``+5``."""
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    program("faketime")
    path = folder / "offset"
    path.write_text(offset)
    return ["env", f"LD_PRELOAD={found[0]}", f"FAKETIME_TIMESTAMP_FILE={path}", "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1"], path
