"""The plain meaning of a safe ledger: play every later round complete, and see whether each open job is complete in time.

The oracle of every scheme's closed form `shortage`.
"""

from distseq.coding.schemes.scheme import Rows, Scheme, missing


def safe_by_roll_forward(scheme: Scheme, t: int, rows: Rows) -> bool:
    """Whether the rows in hand at the end of round t let every open job meet its deadline, later rounds being complete."""
    table = {start: has.copy() for start, has in rows.items()}
    complete = {start: missing(scheme.codes, has) is None for start, has in table.items()}
    for round_ in range(t, t + scheme.delay + 1):
        if round_ > t:
            _play(scheme, round_, table, complete)
        due = round_ - scheme.delay
        if not complete.get(due, True):
            return False
    return True


def _play(scheme: Scheme, t: int, table: dict, complete: dict[int, bool]) -> None:  # type: ignore[type-arg]
    open_rows = {start: has for start, has in table.items() if not complete[start]}
    for task in scheme.assign(t, open_rows).tasks():
        table[task.job][task.group, task.worker] = True
    complete.update({start: missing(scheme.codes, has) is None for start, has in open_rows.items()})
