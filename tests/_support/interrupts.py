"""Exceptions out of signal handlers, at every point of a call where CPython runs them."""

import signal
import sys
from _thread import interrupt_main
from collections import defaultdict
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count


class Interrupt(BaseException):
    """What the handler raises, as those of KeyboardInterrupt and of soft time limits do."""


def _raise(number, frame):
    raise Interrupt


@contextmanager
def interrupted_at(number):
    """Within, the handler runs at the first chance after the step of that number; a step is an instruction
    of Python. A list has that number then, if there was such a step.

    A trace function that raised itself would do so where no signal is handled. So this one makes the signal
    pending, by an instruction after which CPython does not look for signals, and the signal is handled where
    the traced code comes to such a point.
    """
    steps, reached, pending = count(), [], defaultdict(partial(interrupt_main, signal.SIGUSR1))

    def step(frame, event, argument):
        frame.f_trace_opcodes = True
        if next(steps) != number:
            return step
        reached.append(number)
        sys.settrace(None)  # or it would be handled in the next call of this function
        frame.f_trace = None
        pending[0]
        return None

    before, traced = signal.signal(signal.SIGUSR1, _raise), sys.gettrace()
    sys.settrace(step)
    try:
        yield reached
    finally:
        sys.settrace(traced)
        signal.signal(signal.SIGUSR1, before)


def interruptions(call, every=1):
    """Make ``call()``, interrupted at another point each time, until it comes to its end; after each of them
    the caller goes on. Of the points one is taken of so many."""
    for number in count(0, every):
        with suppress(Interrupt), interrupted_at(number) as reached:
            call()
        if not reached:
            return
        yield number
