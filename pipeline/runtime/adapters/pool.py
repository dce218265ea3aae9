"""The units of an import, by a pool of processes, in order and a few ahead."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor

from pipeline.runtime.adapters.task import Outcome, Task, run_task


def run_tasks(tasks: Iterable[Task], processes: int) -> Iterator[Outcome]:
    """Outcomes in the order of the tasks, which are drawn as room allows.

    Args:
        tasks: each writes parts of its own.
        processes: at once; 0 is one a core, 1 stays in this process.

    Raises:
        OSError: of the first task whose storage fails; tasks that have not begun are left.
    """
    processes = processes or os.cpu_count() or 1
    if processes == 1:
        yield from map(run_task, tasks)
        return
    waiting: deque[Future[Outcome]] = deque()
    # Spawned: a fork would copy the locks of Arrow's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(run_task, task))
                if len(waiting) >= 2 * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
