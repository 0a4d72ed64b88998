"""One line that says under which rules figures were found, for every place that shows them."""

from distseq.models.data.events.statistics import recurrence
from distseq.models.data.events.stream import EventStream
from distseq.models.temporal.evaluation.protocol import Protocol
from distseq.models.temporal.evaluation.view import in_mode
from distseq.models.temporal.model import TemporalModel


def described(
    model: TemporalModel, stream: EventStream, protocol: Protocol, *, carried: bool = True, width: int = 0
) -> str:
    """Mode, memory, neighbors, evaluation batch, negatives, ties, and how far the stream repeats itself.

    carried: whether memory came with the model from training, and was not replayed from the first event under the final weights.
    width: the number of negatives of an event, where it is not the protocol's. ValueError as of `in_mode`.
    """
    options, trained = in_mode(model, protocol).options, model.options.mode
    mode = f"mode {options.mode}" + (f" of {options.micro}" if options.mode == "replay" else "")
    if options.mode != trained:
        mode += f" (trained in {trained})"
    said = [mode, "memory carried on from training" if carried else "memory replayed from the first event"]
    if options.embedding == "attention" or options.other == "neighbors" or options.updater == "mailbox":
        said.append("neighbors with t' < t" if options.visible == "event" else "neighbors before the batch")
    said.append(f"batches of {protocol.batch}")
    if options.head == "link":
        count = width or protocol.negatives
        kind = {
            "uniform": f"{count} uniform negatives, never the event's own",
            "historical": f"up to {count} negatives of TGB's hist_rnd",
            "published": f"{count} published negatives" if width else "published negatives",
        }[protocol.kind]
        said.append(kind + (f", one event in {protocol.every} ranked" if protocol.every > 1 else ""))
        said += ["AP against one random destination", "ties count by half"]
    said.append(f"{recurrence(stream).repeats:.0%} of events repeat the last destination of their source")
    return "; ".join(said)
