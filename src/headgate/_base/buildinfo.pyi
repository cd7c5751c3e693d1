from typing import TypedDict, type_check_only

@type_check_only
class _BuildInfo(TypedDict):
    compiler: str
    flags: str
    cython: str
    python: str
    atomics_lock_free: bool
    free_threaded: bool

def build_info() -> _BuildInfo: ...
