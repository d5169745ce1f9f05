"""Who makes the runs of a tuning: this process, or several of this machine.

Strategies run side by side, each asking for one run at a time; a run that two of them ask for is
made once. Nobody but the caller writes runs down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from typing import TypeVar

from joblib.externals.loky import get_reusable_executor

from empirical.transfer.run_store import RunStore
from empirical.transfer.transfer_run import TransferTraining
from empirical.tuning.tuning_loop import tuned_run
from empirical.tuning.tuning_run import TunedPoint, TunedRun, TuningRun
from empirical.tuning.tuning_strategy import Tuning, TuningTask, tell

Name = TypeVar("Name")
Finished = Callable[[TuningRun, TunedRun], None]


class TuningWorkers:
    """Makes runs that the store does not have, and keeps them there.

    Args:
        training: what all runs share.
        store: of finished runs.
        jobs: processes; 1: this one.
        finished: told every run that was made or found.
    """

    def __init__(
        self,
        training: TransferTraining,
        store: RunStore[str, TunedRun],
        jobs: int,
        finished: Finished,
    ) -> None:
        self.training, self.store, self.jobs, self.finished = training, store, jobs, finished
        self._flying: dict[str, Future[TunedRun]] = {}

    def made(self, run: TuningRun) -> TunedRun | Future[TunedRun]:
        """The outcome of a run, or who is at it."""
        known = self.store.get(run.key)
        if known is not None:
            return known
        if self.jobs == 1:
            return self._kept(run, tuned_run(self.training, run))
        if run.key not in self._flying:
            submit = get_reusable_executor(max_workers=self.jobs).submit
            self._flying[run.key] = submit(tuned_run, self.training, run)
        return self._flying[run.key]

    def played(
        self, tunings: Mapping[Name, tuple[Tuning, TuningTask]]
    ) -> Iterator[tuple[Name, TunedPoint]]:
        """The answers of strategies, in the order in which they end."""
        waiting: dict[Name, TuningRun] = {}
        for name, (tune, _) in tunings.items():
            try:
                waiting[name] = next(tune)
            except StopIteration as end:
                yield name, end.value
        while waiting:
            for name, run in self._done(waiting):
                outcome = self._outcome(run)
                tune, task = tunings[name]
                self.finished(run, outcome)
                try:
                    waiting[name] = tell(tune, task, run, outcome)
                except StopIteration as end:
                    del waiting[name]
                    yield name, end.value

    def trained(self, runs: Mapping[Name, TuningRun]) -> Iterator[tuple[Name, TunedRun]]:
        """The outcomes of runs that are all known beforehand."""
        waiting = dict(runs)
        if self.jobs > 1:
            for run in waiting.values():
                self.made(run)
        while waiting:
            for name, run in self._done(waiting):
                outcome = self._outcome(run)
                self.finished(run, outcome)
                del waiting[name]
                yield name, outcome

    def _done(self, waiting: Mapping[Name, TuningRun]) -> list[tuple[Name, TuningRun]]:
        """Those whose run is finished: one at least."""
        flying = {}
        done = []
        for name, run in waiting.items():
            made = self.made(run)
            if not isinstance(made, Future):
                done.append((name, run))
                if self.jobs == 1:
                    return done
            elif made.done():
                done.append((name, run))
            else:
                flying[made] = name
        if not done:
            wait(flying, return_when=FIRST_COMPLETED)
            return self._done(waiting)
        return done

    def _outcome(self, run: TuningRun) -> TunedRun:
        made = self.made(run)
        return self._kept(run, made.result()) if isinstance(made, Future) else made

    def _kept(self, run: TuningRun, outcome: TunedRun) -> TunedRun:
        self._flying.pop(run.key, None)
        self.store.put(run.key, outcome)
        return outcome


@contextmanager
def tuning_workers(
    training: TransferTraining, store: RunStore[str, TunedRun], jobs: int, finished: Finished
) -> Iterator[TuningWorkers]:
    """Workers; runs that are under way when something fails are given up."""
    workers = TuningWorkers(training, store, jobs, finished)
    try:
        yield workers
    finally:
        for future in workers._flying.values():
            future.cancel()
