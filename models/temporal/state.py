"""The state of memory of one learner: for each node its memory, the message that waits for it, and what a mode keeps beside them.

Shapes: N nodes, V nodes that change, d width, F features, k neighbors, S slots. Fields, each with N rows:
  memory (N, d), updated (N,)          memory before the waiting message, and the time of the last event that it includes
  other (N, d), event, time, valid (N,)   the waiting message: memory of the other endpoint before that event, its index and time
  mean_features (N, F), mean_encoding     aggregation "mean" only: the means of features and encodings; other is a mean too
  around (N, k, d)                        other="neighbors" only: memory of the other endpoint's neighbors
  mail (N, S, 2 d), mail_event, mail_time, mail_valid (N, S)   updater "mailbox" only, instead of other, event, time, valid
  xi, psi (N, d), count (N,)              mode "pres" only: sums of innovations and of their squares, and their number
A message is applied when it is read, with the parameters of then: that is how updates get a gradient (TGN's lag of one batch).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distseq.models.temporal.digest import replaced, rows_digest
from distseq.models.temporal.draws import hashed
from distseq.models.temporal.options import Options

Fields = dict[str, Tensor]
Spec = tuple[tuple[int, ...], torch.dtype]


def layout(options: Options, dtype: torch.dtype = torch.float32) -> dict[str, Spec]:
    """Shape of a row, and dtype, of each field, in the order of digests."""
    d, whole, flag = (options.width,), torch.int64, torch.bool
    fields: dict[str, Spec] = {"memory": (d, dtype), "updated": ((), whole)}
    if options.updater == "mailbox":
        slots = (options.slots,)
        fields |= {"mail": ((*slots, 2 * options.width), dtype), "mail_event": (slots, whole)}
        fields |= {"mail_time": (slots, whole), "mail_valid": (slots, flag)}
    else:
        fields |= {"other": (d, dtype), "event": ((), whole), "time": ((), whole), "valid": ((), flag)}
    if options.aggregation == "mean":
        fields |= {"mean_features": ((options.features,), dtype), "mean_encoding": ((options.time_width,), dtype)}
    if options.other == "neighbors":
        fields["around"] = ((options.neighbors, options.width), dtype)
    if options.mode == "pres":
        fields |= {"xi": (d, dtype), "psi": (d, dtype), "count": ((), whole)}
    return fields


def state_bytes(nodes: int, options: Options, dtype: torch.dtype = torch.float32) -> int:
    """Bytes of the state of so many nodes.

    >>> state_bytes(1000, Options(width=100))  # two rows of 100 numbers, three times 8 bytes and a flag
    825000
    """
    return sum(nodes * int(np.prod(shape)) * kind.itemsize for shape, kind in layout(options, dtype).values())


class Changes(NamedTuple):
    """New rows of some nodes. `event` decides between changes of the same node from parts of one batch."""

    nodes: np.ndarray  # (V,) int64, sorted, each once
    event: np.ndarray  # (V,) int64, the last event of each
    fields: Fields  # rows (V, ...) of every field


class State:
    """Fields of N nodes (module docstring), all without gradient, and `position`, the number of events applied."""

    def __init__(self, fields: Fields, position: int = 0) -> None:
        self.fields, self.position = fields, position
        # The sum of the rows' digests, and the fields' versions that it is of: torch counts what changes a tensor in place.
        self._sum: int | None = None
        self._versions: list[int] = []

    @classmethod
    def empty(cls, nodes: int, options: Options, dtype: torch.dtype = torch.float32) -> "State":
        """Memory 0, no messages, at the stream's beginning.

        >>> State.empty(5, Options(width=4)).fields["memory"].shape
        torch.Size([5, 4])
        """
        made = {name: torch.zeros(nodes, *shape, dtype=kind) for name, (shape, kind) in layout(options, dtype).items()}
        return cls(made)

    def __len__(self) -> int:
        """The number of nodes N."""
        return len(self.fields["memory"])

    def rows(self, nodes: np.ndarray) -> Fields:
        """Copies of the rows (V, ...) of each field, and the nodes themselves as "node"."""
        at = torch.from_numpy(nodes)
        return {"node": at} | {name: field.index_select(0, at) for name, field in self.fields.items()}

    def apply(self, changes: Changes, position: int) -> Changes:
        """Puts new rows in, in place; what was there is returned, so that the state can be put back."""
        before = changes._replace(fields=self.rows(changes.nodes))
        at = torch.from_numpy(changes.nodes)
        current = self._sum is not None and self._versions == self._counted()
        if self._sum is not None and current:
            old, new = ({name: one.fields[name] for name in self.fields} for one in (before, changes))
            self._sum = replaced(self._sum, rows_digest(old, changes.nodes), rows_digest(new, changes.nodes))
        for name, field in self.fields.items():
            field.index_copy_(0, at, changes.fields[name])
        if current:
            self._versions = self._counted()
        self.position = position
        return before

    def _counted(self) -> list[int]:
        return [field._version for field in self.fields.values()]

    def copy(self) -> "State":
        """A state that shares nothing with this one."""
        made = State({name: field.clone() for name, field in self.fields.items()}, self.position)
        if self._versions == self._counted():
            made._sum, made._versions = self._sum, made._counted()
        return made

    def begin_epoch(self) -> None:
        """Sets the trackers of mode "pres" to 0, in place; memory stays."""
        for name in ("xi", "psi", "count"):
            if name in self.fields:
                self.fields[name].zero_()

    def digest(self) -> bytes:
        """8 bytes that are equal for equal states, bit for bit.

        Takes a pass over all memory at first, and after changes by others than `apply`; else nothing.
        """
        if self._sum is None or self._versions != self._counted():
            self._sum, self._versions = rows_digest(self.fields, np.arange(len(self))), self._counted()
        return int(hashed(np.array(self._sum, np.uint64), self.position)[()]).to_bytes(8, "little")

    def to_dict(self) -> dict[str, Tensor]:
        """Copies of all fields and of the position, for a checkpoint."""
        return {name: field.clone() for name, field in self.fields.items()} | {"position": torch.tensor(self.position)}

    @classmethod
    def from_dict(
        cls, saved: Mapping[str, Tensor], nodes: int, options: Options, dtype: torch.dtype = torch.float32
    ) -> "State":
        """The state of `to_dict`. ValueError, naming the field, where it is not one of so many nodes and these options."""
        expected = {name: ((nodes, *shape), kind) for name, (shape, kind) in layout(options, dtype).items()}
        expected["position"] = ((), torch.int64)
        for name in sorted(expected.keys() | saved.keys()):
            found = (tuple(saved[name].shape), saved[name].dtype) if name in saved else None
            if found != expected.get(name):
                raise ValueError(f"state of memory, field {name!r}: expected {expected.get(name)}: got {found}")
        return cls({name: saved[name].clone() for name in layout(options, dtype)}, int(saved["position"]))


def merged(parts: list[Changes]) -> Changes:
    """The changes of a whole batch from those of its parts, all from the state before it: of a node the largest event wins.

    Holds where every message uses the memory before the batch and only the last one counts: aggregation "last", no mailbox,
    and neither replay nor exact.
    """
    nodes, event = (np.concatenate(column) for column in ([p.nodes for p in parts], [p.event for p in parts]))
    order = np.lexsort((event, nodes))
    last = order[np.append(nodes[order][1:] != nodes[order][:-1], True)] if len(order) else order
    at = torch.from_numpy(last)
    fields = {name: torch.cat([part.fields[name] for part in parts])[at] for name in parts[0].fields}
    return Changes(nodes[last], event[last], fields)
