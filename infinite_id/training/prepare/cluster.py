"""The jobs of `prepare` as a Ray Data pipeline, on one machine or on a cluster.

Ray hands jobs to processes that keep their nets, and hands those of a process that died to
another. Photos, ComfyUI, this pack and the output folder must lie at the same paths on all
machines, as on a shared file system.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ... import launch
from ...errors import UserError
from .work import JobT, Worker

LOCAL = "local"
_BLOCKS = 256
"""The number of parts into which Ray divides the jobs. It keeps account of each part."""


@dataclass(frozen=True)
class Processes:
    """How the work is spread.

    Attributes:
        host: ComfyUI, which each process looks for.
        count: processes at most; 0 for one on each GPU, or without GPUs one for every two cores.
    """

    host: launch.HostOptions
    count: int = 0

    def __call__(
        self,
        jobs: Sequence[JobT],
        make_worker: Callable[[], Worker[JobT]],
        tell: Callable[[int], None],
    ) -> None:
        """Do all jobs, in any order. See `work.Spread`.

        Raises:
            UserError: of a job, or if Ray could not do a job in any process.
        """
        if not jobs:
            return
        import ray

        needs, most = self._share(ray.cluster_resources())
        items = [{"job": job} for job in jobs]
        blocks = min(len(items), _BLOCKS)
        data: Any = ray.data.from_items(items, override_num_blocks=blocks)  # `map` is mistyped
        done = data.map(
            _Process,
            fn_constructor_args=(self.host, make_worker),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(most, len(jobs))),
            **needs,
        )
        try:
            for row in done.iter_rows():
                if row["error"]:
                    raise UserError(row["error"])
                tell(row["photos"])
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines()
            raise UserError(
                f"Ray could not do the work: {lines[-1] if lines else error}"
            ) from error

    def _share(self, has: dict[str, float]) -> tuple[dict[str, float], int]:
        """What each process needs, and how many there may be."""
        gpus, cores = int(has.get("GPU", 0)), int(has.get("CPU", 1))
        if gpus:
            most = self.count or gpus
            return {"num_gpus": min(1.0, gpus / most)}, most
        most = self.count or max(1, cores // 2)
        return {"num_cpus": max(1, cores // most)}, most


class _Process:
    """The state of one of Ray's processes: a worker, which loads its nets once."""

    def __init__(self, host: launch.HostOptions, make_worker: Callable[[], Worker[Any]]) -> None:
        launch.use_host(host)
        self._work = make_worker()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            self._work(row["job"], lambda: None)
        except UserError as error:  # as text: Ray would wrap it in words of its own
            return {"photos": 0, "error": str(error)}
        return {"photos": len(row["job"]), "error": ""}


@contextmanager
def connect(address: str) -> Iterator[None]:
    """A connection to Ray, closed at the end.

    Args:
        address: `local` starts Ray in this machine alone; else a cluster's, such as `auto`.

    Raises:
        UserError: if Ray is not installed or does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "--ray needs Ray: `pip install -r requirements/training.txt` in the pack's folder."
        ) from error
    paths = os.pathsep.join([str(launch.PACK), os.environ.get("PYTHONPATH", "")])
    options: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(
            address,
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
            logging_level=logging.ERROR,
            log_to_driver=False,
            **options,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"--ray {address}: Ray cannot be reached ({error}).") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.disable(logging.CRITICAL)  # Ray writes what it does into its own folder as well
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        ray.shutdown()
