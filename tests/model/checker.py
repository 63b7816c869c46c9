"""A small explicit-state model checker.

A model is a start state, a function that gives the steps possible in a state, and a function that judges a state in
which nobody is in the middle of anything.  States are hashable values.  All of them that can be reached are visited,
breadth first, so that the trace of a fault is a shortest one.
"""
from collections import deque
from typing import NamedTuple


class Fault(NamedTuple):
    """What went wrong.  A step may lead to one instead of to a state."""
    kind: str
    detail: str = ""

    def __str__(self):
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


class Result(NamedTuple):
    states: int
    fault: object       # Fault or None
    trace: tuple        # what was done, up to the fault
    complete: bool      # False: given up at most_states


def explore(start, steps, judge, most_states=10_000_000):
    """Visit all states; stop at the first fault.

    steps(state) yields (what, state or Fault); judge(state) returns a Fault or None.
    """
    reached_by = {start: None}
    queue = deque([start])

    def trace(state, last=()):
        labels = list(last)
        while reached_by[state] is not None:
            state, what = reached_by[state]
            labels.append(what)
        return tuple(reversed(labels))

    while queue:
        state = queue.popleft()
        fault = judge(state)
        if fault:
            return Result(len(reached_by), fault, trace(state), True)
        for what, result in steps(state):
            if type(result) is Fault:
                return Result(len(reached_by), result, trace(state, (what,)), True)
            if result not in reached_by:
                if len(reached_by) >= most_states:
                    return Result(len(reached_by), None, (), False)
                reached_by[result] = (state, what)
                queue.append(result)
    return Result(len(reached_by), None, (), True)
