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
from headgate.limit._rate import checked_rates

ROOT = Path(__file__).parents[2]
ATOMICS = Path(__file__).with_name("protocol") / "atomics.h"
HEADERS = ("limit/keyed/cells.h", "limit/keyed/log.h")
HEADER = 4096
KILLED = "killed"
BLIND = -1  # the mutant that swaps without comparing
LOAD, CAS, ADD, CLOCK, STORE = range(1, 6)
SWITCHES = 8  # words before the cells of a RateLimiter
MOST_STEPS = 4096
MOST_RESULTS = MOST_WORDS = 1024
_BLOCKS = 2


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


def build(tree, idea, mutants, cells=8):
    """Compile `idea` in the empty folder `tree`; a mutant is an expression of the HEADERS, and another.
    A line has so many cells.
    """
    folder = tree / "src/headgate"
    alien = shutil.ignore_patterns("*.so", "*.pyd", "*.pyx", "__pycache__")
    shutil.copytree(ROOT / "src/headgate", folder, ignore=alien)
    shutil.copy(ROOT / "setup.py", tree)
    shutil.copy(ATOMICS, folder / "_c")
    source = IDEAS[idea].replace(".", "/") + "/_compiled.pyx"
    shutil.copy(ROOT / "src" / source, tree / "src" / source)
    texts = [(folder / header).read_text() for header in HEADERS]
    texts[0] = texts[0].replace("#define HG_CELLS 8", f"#define HG_CELLS {cells}")
    for number, (old, new) in enumerate(mutants, 1):
        assert sum(text.count(old) for text in texts) == 1, old
        texts = [text.replace(old, f"(hg_process.mutant == {number} ? ({new}) : ({old}))") for text in texts]
    for header, text in zip(HEADERS, texts, strict=True):
        loop = "for (uint32_t before = hg_process.replayed; hg_goes_on(); hg_iterated(before))"
        iterating = text.replace("for (;;)", loop)
        (folder / header).write_text(iterating)
    env = {name: value for name, value in os.environ.items() if name not in ("HEADGATE_PURE", "LD_PRELOAD")}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "built"]
    return subprocess.run(command, cwd=tree, env=env | {"CFLAGS": "-O0"}, capture_output=True, text=True)


def built(tree, idea, mutants=(), cells=8):
    """The module of `idea`, built in the empty folder `tree`; skips where no compiler is needed."""
    if "compiled" not in twin_names():
        pytest.skip("the compiled twin is ignored or absent")
    done = build(tree, idea, mutants, cells)
    if done.returncode and os.environ.get("HEADGATE_PURE") != "0":
        pytest.skip(f"nothing can be compiled: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return Checker(tree, idea)


def in_turn(*programs):
    """A process that does one thing after another."""
    return lambda limiter: [grant for program in programs for grant in program(limiter)]


class Rates:
    """The file of a `RateLimiter` on memory of a checker, at a rate for each generation.

    A block is a word, which is not the number of its generation while it is being written.
    """

    epoch, secret, damage = 0, bytes(16), AssertionError("both blocks are in use")
    edits = 0, False  # no process forks

    def __init__(self, checker, shared, rates, entries):
        self._checker, self.map, self._rates, self.entries = checker, shared, rates, entries
        self.rates = rates[0]

    def rates_of(self, generation):
        word = self._checker.load_word(_BLOCKS + generation % 2)
        return self._rates[generation] if word == generation else None

    def write(self, generation, rates, edit):
        assert edit == self.edits[0]
        assert rates == self._rates[generation]
        self._checker.store_word(_BLOCKS + generation % 2, 2**64 - 1)
        self._checker.store_word(_BLOCKS + generation % 2, generation)

    def check_switch(self, old, rates):
        """All are of one form."""

    def locked(self, function, *arguments):
        """One process switches at a time."""
        return function(*arguments)


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
        self.load_word, self.store_word = library.hg_load_word, library.hg_store_word
        self.load_word.restype = ctypes.c_uint64
        self.load_word.argtypes = ctypes.c_uint32,
        self.store_word.argtypes = ctypes.c_uint32, ctypes.c_uint64
        self._start, self._is_switched, self.read = None, False, 0

    def _clock(self):
        self._check_end()
        self.read = self._read_clock()
        return self.read

    def open_bucket(self, *arguments, size):
        """A bucket on `size` words of memory, which are all 0."""
        table = SimpleNamespace(epoch=0, secret=bytes(16), map=self._allot(size), refusal="it is shared")
        with mock.patch("headgate.limit._files.shared_bucket", lambda *given: (table, given[3])):
            self._limiter = self.module.TokenBucket(*arguments, path="memory", clock=self._clock)
        return self._limiter, self._memory()

    def open_limiter(self, rate, *more, size, entries=0, **options):
        """A limiter on `size` words of memory, which are all 0, behind those of its switches; `more` are the
        rates to which it will be switched.
        """
        shared = self._allot(size, SWITCHES)
        self._is_switched = bool(more)
        rates = [checked_rates(each, None) for each in (rate, *more)]
        table = Rates(self, shared, rates, entries)
        with mock.patch("headgate.limit._files.shared_limiter", lambda *_: table):
            self._limiter = self.module.RateLimiter(rate, path="memory", clock=self._clock, **options)
        return self._limiter, self._memory()

    def open_words(self, size):
        """The words of a ledger, which are all 0."""
        self._limiter = self.module.Words(memoryview(self._allot(size)).cast("B")[HEADER:])
        return self._memory()

    def _allot(self, size, before=0):
        """Memory with so many words behind a header, of which the last `before` belong to it too."""
        shared = (ctypes.c_uint64 * (HEADER // 8 + size))()
        self._size, self._start, self._is_switched = size + before, None, False
        self._process.unscheduled = self._process.kind = 0
        self._cells = ctypes.byref(shared, HEADER - 8 * before)
        self._process.memory = ctypes.addressof(shared) + HEADER - 8 * before
        return shared

    def _memory(self):
        return ctypes.string_at(self._cells, 8 * self._size)

    def run(self, program, memory, now, record=()):
        """What a process returns that runs on after the steps of `record`, and the memory."""
        process = self._process
        if self._start is not None:
            self._begin()
        ctypes.memmove(self._cells, memory, len(memory))
        process.now = now
        process.results[: len(record)] = record
        process.recorded = len(record)
        process.replayed = process.unscheduled = process.droppable = process.kind = 0
        outcome = program(self._limiter)
        self._check_end()
        return outcome, self._memory()

    def _check_end(self):
        alone = self._process.unscheduled
        assert alone < MOST_STEPS, "a process that runs without interruption does not end"

    def _begin(self):
        """Let the limiter be at the rate that was in force at the start."""
        ctypes.memmove(self._cells, self._start, len(self._start))
        self._process.recorded = self._process.replayed = 0
        assert self._limiter.rates

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

    def outcomes(self, programs, memory, times=(0,), kills=0, most=None):
        """The ways in which it may end: what the processes returned, and the memory; some may come twice.

        Each process has loaded the rate that is in force at the start. At `most` so many times another
        process goes on before one is at its end.
        """
        self._start = memory if self._is_switched else None
        self._process.ticking = len(times) > 1
        self._process.written[:] = bytes(MOST_WORDS)
        while (yield from self._explore(programs, memory, times, kills, most)):
            pass

    def _explore(self, programs, memory, times, kills, most):
        """The outcomes; True if a word was written that was not known to be, so that some may be missing."""
        start = memory, 0, ((),) * len(programs), kills, None, most
        pending, known, turns = [start], {start}, {}
        while pending:
            memory, moment, records, kills, last, most = pending.pop()
            results, steps = [], []
            for number, program in enumerate(programs):
                if records[number] == KILLED:
                    results.append(KILLED)
                    continue
                turn = program, records[number]
                if turn not in turns:
                    outcome, _ = self.run(program, memory, times[moment], records[number])
                    if self._is_new_write():
                        return True
                    q = self._process
                    turns[turn] = outcome, (q.kind, q.droppable, q.now, q.at, q.old, q.value)
                outcome, step = turns[turn]
                step = self._perform(memory, records[number], *step, times[moment])
                if step is None:
                    results.append(outcome)
                    continue
                kept, result, changed = step
                records = self._after(records, number, kept)
                steps.append((number, result, changed))
            if not steps:
                yield results, memory
                continue
            following = []
            if moment + 1 < len(times):
                following = [(memory, moment + 1, records, kills, last, most)]
            under_way = [number for number, _, _ in steps]
            for number, result, changed in steps:
                left, mine = most, None if most is None else number
                if most is not None and last in under_way and last != number:
                    left = most - 1
                    if left < 0:
                        continue
                after = self._after(records, number, (*records[number], result))
                following.append((changed, moment, after, kills, mine, left))
                if kills:
                    killed = self._after(records, number, KILLED)
                    following.append((memory, moment, killed, kills - 1, mine, left))
            for state in following:
                if state not in known:
                    known.add(state)
                    pending.append(state)
        return False

    def _after(self, records, number, new_record):
        return (*records[:number], new_record, *records[number + 1 :])

    def _is_new_write(self):
        process = self._process
        if process.kind not in (CAS, ADD, STORE) or process.written[process.at]:
            return False
        process.written[process.at] = 1
        return True

    def _perform(self, memory, record, kind, droppable, _, at, old, new, now):
        if not kind:
            return None
        kept = record[: len(record) - droppable]
        if kind == CLOCK:
            return kept, now, memory
        start, end = 8 * at, 8 * at + 8
        word = int.from_bytes(memory[start:end], sys.byteorder)
        if kind == LOAD:
            return kept, word, memory
        if kind == CAS and word != old and self._process.mutant != BLIND:
            return kept, 0, memory
        value = (word + new) % 2**64 if kind == ADD else new
        return kept, 1, memory[:start] + value.to_bytes(8, sys.byteorder) + memory[end:]
