"""Every interleaving of a few processes on the shared memory of a compiled limiter, with kills at every step.

The processes run the limiter's own code, compiled with protocol/atomics.h in place of atomics.h, which
explains how a process is stopped between two steps. A step is an access to shared memory or a reading of the
clock; between any two of them another process may run, time may go on, or the process may be killed.

A checker is worth what it can catch, so the same build has mutants: expressions of cells.h, each with
another that replaces it when that mutant is selected.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from twins import twin_names

from headgate.cli.twins import IDEAS

ROOT = Path(__file__).parents[2]
ATOMICS = Path(__file__).with_name("protocol") / "atomics.h"
HEADERS = ("limit/keyed/cells.h", "limit/keyed/log.h")
HEADER = 4096
KILLED = "killed"
BLIND = -1  # the mutant that swaps without comparing
LOAD, CAS, ADD, CLOCK = range(1, 5)
MOST_STEPS = 4096
MOST_RESULTS = MOST_WORDS = 1024


class Process(ctypes.Structure):
    """hg_process of protocol/atomics.h."""

    _fields_ = (
        ("memory", ctypes.c_void_p),
        ("now", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("mutant", "ticking")),
        *((name, ctypes.c_uint32) for name in (
            "recorded", "replayed", "unscheduled", "droppable", "kind", "at",
        )),
        ("old", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("results", ctypes.c_uint64 * MOST_RESULTS),
        ("written", ctypes.c_uint8 * MOST_WORDS),
    )


def build(tree, idea, mutants):
    """Compile `idea` in the empty folder `tree`; a mutant is an expression of the HEADERS, and another."""
    folder = tree / "src/headgate"
    alien = shutil.ignore_patterns("*.so", "*.pyd", "*.pyx", "__pycache__")
    shutil.copytree(ROOT / "src/headgate", folder, ignore=alien)
    shutil.copy(ROOT / "setup.py", tree)
    shutil.copy(ATOMICS, folder / "_c")
    source = IDEAS[idea].replace(".", "/") + "/_compiled.pyx"
    shutil.copy(ROOT / "src" / source, tree / "src" / source)
    texts = [(folder / header).read_text() for header in HEADERS]
    for number, (old, new) in enumerate(mutants, 1):
        assert sum(text.count(old) for text in texts) == 1, old
        texts = [text.replace(old, f"(hg_process.mutant == {number} ? ({new}) : ({old}))") for text in texts]
    for header, text in zip(HEADERS, texts, strict=True):
        loop = "for (uint32_t before = hg_process.replayed;; hg_iterated(before))"
        iterating = text.replace("for (;;)", loop)
        (folder / header).write_text(iterating)
    env = {name: value for name, value in os.environ.items() if name not in ("HEADGATE_PURE", "LD_PRELOAD")}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "built"]
    return subprocess.run(command, cwd=tree, env=env | {"CFLAGS": "-O0"}, capture_output=True, text=True)


def built(tree, idea, mutants=()):
    """The module of `idea`, built in the empty folder `tree`; skips where no compiler is needed."""
    if "compiled" not in twin_names():
        pytest.skip("the compiled twin is ignored or absent")
    done = build(tree, idea, mutants)
    if done.returncode and os.environ.get("HEADGATE_PURE") != "0":
        pytest.skip(f"nothing can be compiled: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return Checker(tree, idea)


def in_turn(*programs):
    """A process that does one thing after another."""
    return lambda limiter: [grant for program in programs for grant in program(limiter)]


class Checker:
    """A module that was built in `tree`, for processes that share one limiter of it."""

    def __init__(self, tree, idea):
        full_name = f"{IDEAS[idea]}._compiled"
        path = tree / "built" / (full_name.replace(".", "/") + EXTENSION_SUFFIXES[0])
        spec = spec_from_file_location(full_name, path, loader=ExtensionFileLoader(full_name, str(path)))
        self.module = module_from_spec(spec)
        spec.loader.exec_module(self.module)
        library = ctypes.PyDLL(str(path))
        self._process = Process.in_dll(library, "hg_process")
        self._read_clock = library.hg_read_clock
        self._read_clock.restype = ctypes.c_int64
        self.read = 0

    def _clock(self):
        self.read = self._read_clock()
        return self.read

    def open(self, kind, *arguments, size, **options):
        """A limiter on `size` words of memory, which are all 0."""
        shared = self._allot(size)
        table = SimpleNamespace(epoch=0, secret=bytes(16), map=shared, refusal="it is shared")
        with mock.patch.multiple(
            "headgate.limit._files", shared_limiter=lambda *given: (table, given[3]),
            shared_bucket=lambda *given: (table, given[3]),
        ):
            make = getattr(self.module, kind)
            self._limiter = make(*arguments, path="memory", clock=self._clock, **options)
        return self._limiter, self._memory()

    def open_words(self, size):
        """The words of a ledger, which are all 0."""
        self._limiter = self.module.Words(memoryview(self._allot(size)).cast("B")[HEADER:])
        return self._memory()

    def _allot(self, size):
        """Memory with so many words behind a header."""
        shared = (ctypes.c_uint64 * (HEADER // 8 + size))()
        self._size = size
        self._cells = ctypes.byref(shared, HEADER)
        self._process.memory = ctypes.addressof(shared) + HEADER
        return shared

    def _memory(self):
        return ctypes.string_at(self._cells, 8 * self._size)

    def run(self, program, memory, now, record=()):
        """What a process returns that runs on after the steps of `record`, and the memory."""
        process = self._process
        ctypes.memmove(self._cells, memory, len(memory))
        process.now = now
        process.results[: len(record)] = record
        process.recorded = len(record)
        process.replayed = process.unscheduled = process.droppable = process.kind = 0
        outcome = program(self._limiter)
        assert process.unscheduled < MOST_STEPS, "a process that runs without interruption does not end"
        return outcome, self._memory()

    def charged(self, memory, charges, now):
        """The memory after these charges, a key and a cost each, all of which are allowed."""
        def charge(limiter):
            for key, cost in charges:
                assert limiter.allow(key, cost)
        return self.run(charge, memory, now)[1]

    def drained(self, memory, key, now):
        """How many tokens the key gets in the end, and the memory then."""
        def drain(limiter):
            return sum(1 for _ in iter(lambda: limiter.allow(key), False))
        return self.run(drain, memory, now)

    @contextmanager
    def mutant(self, number):
        self._process.mutant = number
        try:
            yield
        finally:
            self._process.mutant = 0

    def outcomes(self, programs, memory, times=(0,), kills=0):
        """The ways in which it may end: what the processes returned, and the memory; some may come twice."""
        self._process.ticking = len(times) > 1
        self._process.written[:] = bytes(MOST_WORDS)
        while (yield from self._explore(programs, memory, times, kills)):
            pass

    def _explore(self, programs, memory, times, kills):
        """The outcomes; True if a word was written that was not known to be, so that some may be missing."""
        start = memory, 0, ((),) * len(programs), kills
        pending, known, turns = [start], {start}, {}
        while pending:
            memory, moment, records, kills = pending.pop()
            results, steps = [], []
            for number, program in enumerate(programs):
                if records[number] == KILLED:
                    results.append(KILLED)
                    continue
                turn = program, records[number], memory, moment
                if turn not in turns:
                    outcome, _ = self.run(program, memory, times[moment], records[number])
                    if self._is_new_write():
                        return True
                    turns[turn] = outcome, self._perform(memory, records[number])
                outcome, step = turns[turn]
                if step is None:
                    results.append(outcome)
                    continue
                kept, result, changed = step
                records = self._after(records, number, kept)
                steps.append((number, result, changed))
            if not steps:
                yield results, memory
                continue
            following = [(memory, moment + 1, records, kills)] if moment + 1 < len(times) else []
            for number, result, changed in steps:
                after = self._after(records, number, (*records[number], result))
                following.append((changed, moment, after, kills))
                if kills:
                    following.append((memory, moment, self._after(records, number, KILLED), kills - 1))
            for state in following:
                if state not in known:
                    known.add(state)
                    pending.append(state)
        return False

    def _after(self, records, number, new_record):
        return (*records[:number], new_record, *records[number + 1 :])

    def _is_new_write(self):
        process = self._process
        if process.kind not in (CAS, ADD) or process.written[process.at]:
            return False
        process.written[process.at] = 1
        return True

    def _perform(self, memory, record):
        """What a process keeps of its record, the result of its next step, and the memory then.

        None if it is at its end.
        """
        process = self._process
        if not process.kind:
            return None
        kept = record[: len(record) - process.droppable]
        if process.kind == CLOCK:
            return kept, process.now, memory
        start, end = 8 * process.at, 8 * process.at + 8
        word = int.from_bytes(memory[start:end], sys.byteorder)
        if process.kind == LOAD:
            return kept, word, memory
        if process.kind == CAS and word != process.old and process.mutant != BLIND:
            return kept, 0, memory
        value = process.value if process.kind == CAS else (word + process.value) % 2**64
        return kept, 1, memory[:start] + value.to_bytes(8, sys.byteorder) + memory[end:]
