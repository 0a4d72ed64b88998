"""The master loop: asks the scheduler what to do and carries it out on the pool and the learners."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from distseq.cluster.pool import Delivery, Fault, FaultError, Payload, Pool, PoolError
from distseq.cluster.work import fault_of
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.scheme import Scheme
from distseq.engine.evaluation import Evaluate, Evaluations
from distseq.engine.failures import LearnerFailure
from distseq.engine.interfaces import CheckpointHook, JobInput, Observer, TrainableLearner
from distseq.engine.journal import Journal, Record, arrival
from distseq.scheduling.scheduler import Decision, Round, Scheduler


class Master:
    """Trains learners to their last step, or until the checkpoint hook asks to stop.

    journal, observers, checkpoint_hook: told of everything that happens; all optional.
    first_job: number of the first job; in a resumed run, one that the run has not used.
    done: steps that each learner has already made; default 0.
    evaluate: on how many samples learners are evaluated, and how often; default never.
    ahead: jobs of one learner that are open at once, applied in order. With more than one, gradients are up to ahead - 1 steps
        stale, and training is not exact.

    A learner whose row or step fails is listed in `failures` and opens no more jobs; the others go on.
    """

    def __init__(
        self,
        learners: Sequence[TrainableLearner],
        scheduler: Scheduler,
        pool: Pool,
        journal: Journal | None = None,
        observers: Sequence[Observer] = (),
        *,
        first_job: int = 0,
        done: Sequence[int] | None = None,
        checkpoint_hook: CheckpointHook | None = None,
        evaluate: Evaluate | None = None,
        ahead: int = 1,
    ) -> None:
        self._learners, self._scheduler, self._pool = learners, scheduler, pool
        self._journal, self._observers = journal, observers
        self._next_job = first_job  # number of the next job
        self._done = [0] * len(learners) if done is None else list(done)  # steps made by each learner
        self._ahead, self._next_step = ahead, list(self._done)  # the step that each learner opens next
        self._checkpoint_hook = checkpoint_hook
        # Open job -> learner, step, steps made when it opened, input.
        self._open_jobs: dict[int, tuple[int, int, int, JobInput]] = {}
        # (Learner, step) -> job and decode weights: complete, while an earlier job of the learner is not.
        self._decodable: dict[tuple[int, int], tuple[int, Mapping[MiniTask, float]]] = {}
        self._payloads: dict[int, Payload] = {}  # published job -> payload
        self._arrivals: list[list[float]] = []
        self._members: Mapping[int, str] = {}
        self._evaluations = Evaluations(
            evaluate or Evaluate([0] * len(learners)), learners, pool, self._new_number, self._write, observers
        )
        self.failures: list[LearnerFailure] = []
        self.stopped = False  # by the checkpoint hook, before the end

    def run(self) -> float:
        """Trains to the end and returns the pool time at which the last job was applied. PoolError when the pool gives up."""
        # The learner with the fewest steps opens first, as it would have in a run without a break.
        for learner in sorted(range(len(self._learners)), key=lambda m: self._done[m]) * self._ahead:
            self._open(learner)
        while self._open_jobs:
            if self._asked_to_stop():
                return self._pool.now()
            self._report_pool_changes()
            decision = self._scheduler.step(self._pool.now())
            self._act(decision)
            # After decoding, learners have opened new jobs: the scheduler decides about these before anything is waited for.
            if not decision.decode:
                self._receive(self._pool.poll(decision.wake))
        seconds = self._pool.now()
        # Ends the last round, which is in the journal then.
        self._act(self._scheduler.step(seconds))
        self._evaluate_all()
        return seconds

    def _evaluate_all(self) -> None:
        """The final evaluations, after those still in progress."""
        self._await_evaluations()
        # Checked for each, because a stop may be requested while evaluations are awaited.
        for learner, done in enumerate(self._done):
            if not self.stopped:
                self._evaluations.finish(learner, done)
        self._await_evaluations()

    def _await_evaluations(self) -> None:
        while self._evaluations.running and not self._asked_to_stop():
            self._report_pool_changes()
            self._receive(self._pool.poll(None))

    def _asked_to_stop(self) -> bool:
        self.stopped = self.stopped or (self._checkpoint_hook is not None and self._checkpoint_hook.stopping())
        return self.stopped

    def _new_number(self) -> int:
        job, self._next_job = self._next_job, self._next_job + 1
        return job

    def _write(self, record: Record) -> None:
        if self._journal is not None:
            self._journal.write(record)

    def _open(self, learner: int) -> None:
        step, steps = self._next_step[learner], self._learners[learner].steps
        # It has opened its last job; with ahead > 1 others of it may still be open.
        if step == steps:
            return
        self._next_step[learner] = step + 1
        job, job_input = self._new_number(), self._learners[learner].open(step)
        self._open_jobs[job] = (learner, step, self._done[learner], job_input)
        self._scheduler.opened(job, learner, job_input.cost, steps - step - 1, self._pool.now())

    def _report_pool_changes(self) -> None:
        """Tells the scheduler, the journal and observers of changes among the pool's hosts."""
        now, members = self._pool.now(), self._pool.members()
        # `is not`: the pool returns the same object until it changes, so that the usual case costs nothing.
        if members is not self._members:
            self._members = members
            self._scheduler.members(members, now)
        for line in self._pool.news():
            self._write({"kind": "hosts", "at": round(now, 6), "news": line, "workers": len(members)})
            for observer in self._observers:
                observer.pool_changed(line)

    def _receive(self, polled: list[Delivery]) -> None:
        now = self._pool.now()
        # Evaluations first: the scheduler does not know their jobs.
        deliveries = [delivery for delivery in polled if not self._evaluations.take(delivery)]
        self._scheduler.delivered(deliveries, now)
        if self._journal is not None:
            # After the scheduler but before decoding, while the loads of the jobs that will be complete are still known.
            self._arrivals += [arrival(delivery, self._load(delivery)) for delivery in deliveries]
        for delivery in deliveries:
            # Only the first fault of a job: the others are about a learner that has been stopped already.
            if delivery.fault is not None and delivery.task.job in self._open_jobs:
                self._fail(delivery.task.job, delivery.fault, delivery.host)
        for observer in self._observers:
            observer.polled(self._scheduler, now)

    def _load(self, delivery: Delivery) -> float:
        """Fraction of a batch that a row took, times the job's cost; 0 when its job is finished."""
        payload = self._payloads.get(delivery.task.job)
        return (
            0.0 if payload is None else payload.cost * payload.layout.loads[delivery.task.group][delivery.task.worker]
        )

    def _act(self, decision: Decision) -> None:
        """Carries out a decision. Cancelling comes before sending, so that a worker does not begin what is not wanted."""
        if decision.chosen is not None:
            self._write({"kind": "choice", **decision.chosen})
            for observer in self._observers:
                observer.scheduling_changed(decision.chosen)
        if decision.cancel:
            self._pool.cancel(decision.cancel)
        for ended in decision.ended:
            self._end_round(ended)
        for job, weights in decision.decode.items():
            # Its learner may have failed while an earlier job of this decision was applied.
            if job in self._open_jobs:
                self._complete(job, weights, decision.roundless)
        for job, scheme in decision.start.items():
            self._publish(job, scheme)
        if decision.send:
            self._pool.send(decision.send)

    def _end_round(self, ended: Round) -> None:
        if self._journal is not None:
            self._journal.write({"kind": "round", **asdict(ended), "arrivals": self._pop_arrivals()})
        for observer in self._observers:
            observer.round_ended(ended)

    def _pop_arrivals(self) -> list[list[float]]:
        """The arrivals that are in no record yet."""
        arrivals, self._arrivals = self._arrivals, []
        return arrivals

    def _publish(self, job: int, scheme: Scheme) -> None:
        learner, step, _, o = self._open_jobs[job]
        payload = Payload(job, learner, step, o.parameters, o.ids, o.seed, scheme.spec, scheme.n, cost=o.cost)
        self._payloads[job] = payload
        self._pool.publish(job, payload)

    def _complete(self, job: int, weights: Mapping[MiniTask, float], roundless: bool) -> None:
        """Applies a decodable job when it is its learner's next step, and those after it that were waiting for it."""
        learner, step, *_ = self._open_jobs[job]
        self._decodable[learner, step] = (job, weights)
        # In the order of steps, so that the steps made are always the first ones: checkpoints, evaluation and accumulation
        # count on it (docs/decisions/013).
        while (turn := (learner, self._done[learner])) in self._decodable:
            self._decode(*self._decodable.pop(turn), roundless)

    def _decode(self, job: int, weights: Mapping[MiniTask, float], roundless: bool) -> None:
        """Decodes a job and applies it to its learner, which then opens its next one."""
        learner, step, made, _ = self._open_jobs[job]
        try:
            total = self._pool.collect(job, weights)
            # Retired before the step, so that workers stop on its rows while the optimizer runs.
            self._pool.retire(job)
            metrics = dict(self._learners[learner].apply(total))
        except PoolError:
            raise
        except FaultError as error:
            return self._fail(job, error.fault)
        except (ValueError, FloatingPointError) as error:
            return self._fail(job, Fault(" ".join(str(error).split())))
        except Exception as error:  # optimizers and schedules may be the user's, and raise anything
            return self._fail(job, fault_of(error))
        del self._open_jobs[job]
        payload, now, name = self._payloads.pop(job), self._pool.now(), self._learners[learner].name
        for observer in self._observers:
            observer.job_decoded(payload, weights, total)
        record = {"kind": "job", "job": job, "learner": name, "step": step, "scheme": payload.scheme}
        rows = [[task.group, task.worker] for task in weights]
        # Rounds have records of their own, which hold the arrivals; without rounds the jobs' records take them.
        arrivals = {"arrivals": self._pop_arrivals()} if roundless else {}
        record |= {"staleness": step - made, "decoded": round(now, 6), "rows": rows}
        self._write({**record, **metrics, **arrivals})
        self._done[learner] = step + 1
        # Here every learner is between two steps, the only moment at which a checkpoint is consistent (docs/decisions/008).
        if self._checkpoint_hook is not None:
            self._checkpoint_hook.applied(self._done, self._next_job)
        for observer in self._observers:
            observer.job_applied(name, step, metrics, now)
        self._evaluations.step_made(learner, step + 1)
        self._open(learner)

    def _fail(self, job: int, fault: Fault, host: str = "") -> None:
        """Stops the learner of an open job because of a fault, on a worker's `host` or, without one, in this process."""
        learner = self._open_jobs[job][0]
        # All open jobs of the learner: with ahead > 1 there are several.
        for own in [other for other, (owner, *_) in self._open_jobs.items() if owner == learner]:
            del self._open_jobs[own]
            self._payloads.pop(own, None)
            self._scheduler.withdrawn(own, learner)
            self._pool.retire(own)
        # Nobody wants to know how well a learner does that is trained no further.
        self._evaluations.drop(learner)
        host += f" on {fault.machine}" if fault.machine else ""
        failure = LearnerFailure(self._learners[learner].name, self._done[learner], fault.text, host, fault.traceback)
        self.failures.append(failure)
        if self._checkpoint_hook is not None:
            # The hook may have restored an older checkpoint, which has fewer steps.
            self._done[learner] = self._checkpoint_hook.failed(learner)
        self._write({"kind": "failed", **asdict(failure)})
        for observer in self._observers:
            observer.learner_failed(failure)
