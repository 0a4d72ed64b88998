"""The master loop: asks the scheduler what to do and carries it out on the pool and the learners."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from distseq.cluster.pool import Delivery, Fault, FaultError, Payload, Pool, PoolError
from distseq.cluster.work import fault_of
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.scheme import Scheme
from distseq.engine.checks import Check, GradientChecks
from distseq.engine.evaluation import Evaluate, Evaluations
from distseq.engine.failures import LearnerFailure
from distseq.engine.interfaces import CarriedState, CheckpointHook, JobInput, Observer, TrainableLearner
from distseq.engine.journal import Journal, Record, arrival
from distseq.scheduling.scheduler import Decision, Round, Scheduler


class Master:
    """Trains learners to their last step, or until the checkpoint hook asks to stop.

    journal, observers, checkpoint_hook: told of everything that happens; all optional.
    first_job: number of the first job; in a resumed run, one that the run has not used.
    done: steps that each learner has already made; default 0.
    evaluate: on how many samples learners are evaluated, and how often; default never.
    check: how many decoded gradients are compared with the full batch's; default none.
    ahead: jobs of one learner that are open at once, applied in order. With more than one, gradients are up to ahead - 1 steps
        stale, and training is not exact.
    adaptive: the scheduler chooses the number of parts itself, so a job may have more parts than blocks; the rest are empty.

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
        check: Check | None = None,
        ahead: int = 1,
        adaptive: bool = False,
    ) -> None:
        self._adaptive = adaptive
        self._learners, self._scheduler, self._pool = learners, scheduler, pool
        self._journal, self._observers = journal, observers
        self._next_job = first_job  # number of the next job
        self._done = [0] * len(learners) if done is None else list(done)  # steps made by each learner
        self._ahead, self._next_step = ahead, list(self._done)  # the step that each learner opens next
        self._checkpoint_hook = checkpoint_hook
        # Open job -> learner, step, steps made when it opened, input.
        self._open_jobs: dict[int, tuple[int, int, int, JobInput]] = {}
        # (Learner, step) -> job and decode weights: complete, while an earlier job of the learner is not.
        self._decodable: dict[tuple[int, int], tuple[int, Mapping[MiniTask, float], bool]] = {}
        self._payloads: dict[int, Payload] = {}  # published job -> payload
        self._to_prepare: list[CarriedState] = []  # of jobs that were published since the last poll
        self._arrivals: list[list[float]] = []
        self._members: Mapping[int, str] = {}
        self._evaluations = Evaluations(
            evaluate or Evaluate([0] * len(learners)),
            learners,
            pool,
            self._new_number,
            self._write,
            observers,
            self._apply_complete,
            self._fail,
        )
        jobs = sum(learner.steps for learner in learners) - sum(self._done)
        self._checks = GradientChecks(
            check or Check(), learners, pool, jobs, self._new_number, self._write, observers, self._fail
        )
        self.failures: list[LearnerFailure] = []
        self.stopped = False  # by the checkpoint hook, before the end
        self.stepping: int | None = None  # the learner that is making a step

    @property
    def done(self) -> Sequence[int]:
        """Steps made by each learner; after an error, of one that was `stepping` perhaps one more."""
        return self._done

    @property
    def next_job(self) -> int:
        """Number of the next job."""
        return self._next_job

    def run(self) -> float:
        """Trains to the end and returns the pool time at which the last job was applied. PoolError when the pool gives up."""
        # The learner with the fewest steps opens first, as it would have in a run without a break.
        for learner in sorted(range(len(self._learners)), key=lambda m: self._done[m]) * self._ahead:
            self._open(learner)
        self._evaluations.begin(self._done)
        while self._open_jobs:
            if self._asked_to_stop():
                return self._pool.now()
            self._report_pool_changes()
            decision = self._scheduler.step(self._pool.now())
            self._act(decision)
            # After decoding, learners have opened new jobs: the scheduler decides about these before anything is waited for.
            if not decision.decode:
                self._checks.send(self._scheduler.missing)
                self._prepare_next()
                self._receive(self._pool.poll(decision.wake))
        seconds = self._pool.now()
        # Ends the last round, which is in the journal then.
        self._act(self._scheduler.step(seconds))
        if self._checkpoint_hook is not None:
            self._checkpoint_hook.trained()
        self._evaluate_all()
        return seconds

    def _prepare_next(self) -> None:
        """Advances the states that published jobs read, now that hosts have work."""
        while self._to_prepare:
            self._to_prepare.pop().prepare_next()

    def _evaluate_all(self) -> None:
        """The final evaluations, after those still in progress."""
        self._await_evaluations()
        # Checked for each, because a stop may be requested while evaluations are awaited.
        for learner, done in enumerate(self._done):
            if not self.stopped:
                self._evaluations.finish(learner, done)
        self._await_evaluations()

    def _await_evaluations(self) -> None:
        while (self._evaluations.running or self._checks.running) and not self._asked_to_stop():
            self._report_pool_changes()
            self._checks.send(self._scheduler.missing)
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
        # Evaluations and checks first: the scheduler does not know their jobs.
        deliveries = [one for one in polled if not self._evaluations.take(one) and not self._checks.take(one)]
        self._scheduler.delivered(deliveries, now)
        if self._journal is not None:
            # After the scheduler but before decoding, while the loads of the jobs that will be complete are still known.
            self._arrivals += [arrival(delivery, self._load(delivery)) for delivery in deliveries]
        for delivery in deliveries:
            # Only the first fault of a job: the others are about a learner that has been stopped already.
            if delivery.fault is not None and delivery.task.job in self._open_jobs:
                self._take_fault(delivery.task.job, delivery.fault, delivery.host)
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
        payload = o.payload(job, learner, step, scheme.spec, scheme.n)
        self._payloads[job] = payload
        self._pool.publish(job, payload)
        if o.state is not None:
            self._to_prepare.append(o.state)

    def _complete(self, job: int, weights: Mapping[MiniTask, float], roundless: bool) -> None:
        """Applies a decodable job when it is its learner's next step, and those after it that were waiting for it."""
        learner, step, *_ = self._open_jobs[job]
        self._decodable[learner, step] = (job, weights, roundless)
        self._apply_complete(learner)

    def _apply_complete(self, learner: int) -> None:
        """Applies a learner's complete jobs as far as they are its next steps and it awaits no evaluation."""
        # In the order of steps, so that the steps made are always the first ones: checkpoints, evaluation and accumulation
        # count on it (docs/decisions/013).
        while (turn := (learner, self._done[learner])) in self._decodable and not self._evaluations.holds(learner):
            self._decode(*self._decodable.pop(turn))

    def _decode(self, job: int, weights: Mapping[MiniTask, float], roundless: bool) -> None:
        """Decodes a job and applies it to its learner, which then opens its next one."""
        learner, step, made, _ = self._open_jobs[job]
        due = self._checks.due(learner)
        # What its sum is applied to: with ahead > 1 no longer the parameters of the job's opening (docs/decisions/013).
        parameters = self._learners[learner].open(step).parameters if due and self._ahead > 1 else None
        try:
            total = self._pool.collect(job, weights)
            # Retired before the step, so that workers stop on its rows while the optimizer runs.
            self._pool.retire(job)
            self.stepping = learner
            metrics = dict(self._learners[learner].apply(total))
        except PoolError:
            raise
        except FaultError as error:
            return self._take_fault(job, error.fault)
        except (ValueError, FloatingPointError) as error:
            return self._fail(learner, Fault(" ".join(str(error).split())))
        except Exception as error:  # optimizers and schedules may be the user's, and raise anything
            return self._fail(learner, fault_of(error))
        # Before anything else, which may fail: a state whose number is that of the step before would be trained twice.
        self._done[learner], self.stepping = step + 1, None
        del self._open_jobs[job]
        payload, now, name = self._payloads.pop(job), self._pool.now(), self._learners[learner].name
        applied = payload if parameters is None else replace(payload, parameters=parameters)
        self._checks.decoded(applied, weights, total, due)
        record = {"kind": "job", "job": job, "learner": name, "step": step, "scheme": payload.scheme}
        rows = [[task.group, task.worker] for task in weights]
        # Rounds have records of their own, which hold the arrivals; without rounds the jobs' records take them.
        arrivals = {"arrivals": self._pop_arrivals()} if roundless else {}
        record |= {"staleness": step - made, "decoded": round(now, 6), "rows": rows}
        self._write({**record, **metrics, **arrivals})
        # Here every learner is between two steps, the only moment at which a checkpoint is consistent (docs/decisions/008).
        if self._checkpoint_hook is not None:
            self._checkpoint_hook.applied(self._done, self._next_job)
        for observer in self._observers:
            observer.job_decoded(payload, weights, total)
        for observer in self._observers:
            observer.job_applied(name, step, metrics, now)
        self._evaluations.step_made(learner, step + 1)
        self._open(learner)

    def _take_fault(self, job: int, fault: Fault, host: str = "") -> None:
        """Stops the learner of an open job, or opens the job again.

        Cut into blocks, if a row has only drawn random numbers; with the state that its rows read, if a host's was another one.
        """
        learner, step, _, job_input = self._open_jobs[job]
        if fault.state and job_input.state and job_input.carried and not job_input.carried.whole:
            return self._send_state(job, job_input.state, host)
        # A job that is cut already would come back for ever.
        if not fault.draws or job_input.blocks:
            return self._fail(learner, fault, host)
        own = self._jobs_of(learner)
        # An adaptive scheduler may use more parts than blocks: those that are left without a block are empty.
        parts = 1 if self._adaptive else max(self._payloads[o].layout.parts for o in own if o in self._payloads)
        try:
            blocks = self._learners[learner].cut_in_blocks(parts)
        except ValueError as error:
            return self._fail(learner, Fault(str(error)), host)
        name = self._learners[learner].name
        self._write({"kind": "blocks", "learner": name, "step": step, "blocks": blocks})
        for observer in self._observers:
            observer.cut_in_blocks(name, step, blocks)
        for o in own:
            self._reopen(o, replace(self._open_jobs[o][3], blocks=blocks, joint=False))

    def _send_state(self, job: int, state: CarriedState, host: str) -> None:
        """Opens a job again whose state a host has not, with all of the state: rows of another one are dropped."""
        learner, step, _, job_input = self._open_jobs[job]
        name = self._learners[learner].name
        state.sent_again += 1
        self._write({"kind": "memory", "learner": name, "step": step, "host": host})
        for observer in self._observers:
            observer.state_sent(name, step, host)
        self._reopen(job, replace(job_input, carried=state.whole(step)))

    def _reopen(self, job: int, changed: JobInput) -> None:
        """Withdraws an open job, and opens it under a new number, with the same parameters and samples."""
        learner, step, made, _ = self._open_jobs[job]
        self._withdraw(job)
        number = self._new_number()
        self._open_jobs[number] = (learner, step, made, changed)
        left = self._learners[learner].steps - step - 1
        self._scheduler.opened(number, learner, changed.cost, left, self._pool.now())

    def _jobs_of(self, learner: int) -> list[int]:
        """The open jobs of a learner, in the order of their steps; with ahead > 1 there are several."""
        return sorted(job for job, (owner, *_) in self._open_jobs.items() if owner == learner)

    def _withdraw(self, job: int) -> None:
        """Drops an open job and its rows."""
        learner, step, *_ = self._open_jobs.pop(job)
        self._decodable.pop((learner, step), None)
        self._payloads.pop(job, None)
        self._scheduler.withdrawn(job, learner)
        self._pool.retire(job)

    def _fail(self, learner: int, fault: Fault, host: str = "") -> None:
        """Stops a learner because of a fault, on a worker's `host` or, without one, in this process."""
        self.stepping = None
        for own in self._jobs_of(learner):
            self._withdraw(own)
        # Nobody wants to know how well a learner does that is trained no further.
        self._evaluations.drop(learner)
        self._checks.drop(learner)
        host += f" on {fault.machine}" if fault.machine else ""
        failure = LearnerFailure(self._learners[learner].name, self._done[learner], fault.text, host, fault.traceback)
        self.failures.append(failure)
        if self._checkpoint_hook is not None:
            # The hook may have restored an older checkpoint, which has fewer steps.
            self._done[learner] = self._checkpoint_hook.failed(learner)
        self._write({"kind": "failed", **asdict(failure)})
        for observer in self._observers:
            observer.learner_failed(failure)
