"""Publishes a run's metrics through Ray, which exports them for Prometheus as ray_distseq_*."""

from ray.util.metrics import Counter, Gauge, Histogram

# Edges of the histograms: two for each decade, from a row of a small model to one of the rare events of some 27 s and beyond.
SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]


class HostMeter:
    """Metrics of one host: rows computed, and seconds of computing each."""

    def __init__(self, host: str) -> None:
        tags = {"host": host}
        self._rows = Counter("distseq_rows", "Rows computed", tuple(tags))
        self._compute = Histogram("distseq_row_seconds", "Seconds of computing a row", SECONDS, tuple(tags))
        for metric in (self._rows, self._compute):
            metric.set_default_tags(tags)

    def row(self, seconds: float) -> None:
        self._rows.inc()
        self._compute.observe(seconds)


class RunMeter:
    """Metrics of a run: jobs applied and losses by learner; rounds, whether they waited, their seconds and stragglers."""

    def __init__(self) -> None:
        self._jobs = Counter("distseq_jobs", "Jobs applied", ("learner",))
        self._loss = Gauge("distseq_loss", "Mean loss of the latest batch", ("learner",))
        self._rounds = Counter("distseq_rounds", "Rounds ended", ("waited",))
        self._seconds = Histogram("distseq_round_seconds", "Seconds of a round", SECONDS)
        self._stragglers = Gauge("distseq_stragglers", "Workers whose rows were missing when the latest round ended")

    def job(self, learner: str, loss: float | None) -> None:
        self._jobs.inc(tags={"learner": learner})
        if loss is not None:
            self._loss.set(loss, tags={"learner": learner})

    def round(self, seconds: float, waited: bool, stragglers: int) -> None:
        self._rounds.inc(tags={"waited": str(waited).lower()})
        self._seconds.observe(seconds)
        self._stragglers.set(stragglers)
