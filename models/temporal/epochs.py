"""How the events of a stream's training part are cut into batches, and the numbers of the states between them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Epochs:
    """Epochs of so many events, in batches in order of time; the last batch of an epoch may be shorter.

    Each epoch begins with empty memory. States are numbered: state `e (K + 1) + j` is that of epoch e after j of its K batches,
    so that the state after an epoch and the empty one of the next have numbers of their own.

    >>> epochs = Epochs(events=10, batch=4)
    >>> epochs.batches, epochs.slice_of(2), epochs.slice_of(3), epochs.before(3), epochs.after(3)
    (3, slice(8, 10, None), slice(0, 4, None), 4, 3)
    """

    events: int
    batch: int

    @property
    def batches(self) -> int:
        """K, the batches of an epoch."""
        return -(-self.events // self.batch)

    def epoch_of(self, step: int) -> int:
        """The epoch of a step."""
        return step // self.batches

    def slice_of(self, step: int) -> slice:
        """The events of a step's batch."""
        start = step % self.batches * self.batch
        return slice(start, min(start + self.batch, self.events))

    def before(self, step: int) -> int:
        """The number of the state that a step reads."""
        return step // self.batches * (self.batches + 1) + step % self.batches

    def after(self, done: int) -> int:
        """The number of the state after `done` steps: at the end of an epoch that of its end."""
        return self.before(done - 1) + 1 if done else 0

    def position(self, version: int) -> int:
        """The number of events that a state includes."""
        return min(version % (self.batches + 1) * self.batch, self.events)

    def is_empty(self, version: int) -> bool:
        """Whether a state is the empty one that an epoch begins with."""
        return version % (self.batches + 1) == 0

    def step_from(self, version: int) -> int:
        """The step that reads the state of this number. ValueError for that of an epoch's end, which no step reads."""
        epoch, j = divmod(version, self.batches + 1)
        if j == self.batches:
            raise ValueError(f"state {version} is that of an epoch's end")
        return epoch * self.batches + j
