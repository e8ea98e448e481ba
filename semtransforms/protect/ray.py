"""Protecting with the processes of a Ray cluster: the adapter of Ray Data, which knows no noise.

The driver lists the images and keeps the journal; each actor makes the files of one group at a time and hands their
bytes back; the driver writes them as it does without a cluster. So nothing that dies elsewhere leaves a trace in OUT.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from semtransforms import __version__
from semtransforms.core.checks import check_integer
from semtransforms.data.remote import Place, place_of
from semtransforms.data.sources import Source, open_source
from semtransforms.data.store import default_cache_dir
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.protect.making import Failed, Made, Maker, Task
from semtransforms.protect.publish import Outcome, protect_source

ATTEMPTS = 5  # to go on where the cluster failed, without a single file made in between
ANSWER_SECONDS = 5  # for which a cluster's address is tried

Versions = tuple[tuple[str, str], ...]


def protect_with_ray(
    source: Source | str,
    out: Place | str,
    generator: NoiseGenerator | str,
    *,
    cluster: str = "auto",
    workers: int = 0,
    private: Path | None = None,
    **options: Any,
) -> Outcome:
    """Write a protected copy of every image of a source with a Ray cluster; the files are those of one process.

    Args:
        source: the clean images; a folder must be seen by all machines under the same path.
        out: folder to write, or the address of one, by this process alone; must be empty, or begun by this call.
        generator: makes the noise; fitted for the source's classes.
        cluster: ``HOST:PORT``, or ``"auto"`` for the cluster that this machine belongs to; where it belongs to none,
            one is started here for the time being.
        workers: actors that share the images, each with a GPU where the noise is made on CUDA, else with a CPU; 0, or
            more than the cluster has of them, for all.
        private: folder for what must not be published, on a disk that stays; the default is that of the command.
        options: ``format``, ``quality``, ``seed``, ``noise_size``, ``visibility``, ``device`` and ``max_megapixels`` of
            :func:`semtransforms.protect.publish.protect_source`.

    Returns:
        What was done, with the images that could not be.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ValueError: an argument does not fit, no cluster is at the address, or its versions differ.
        OSError: as for ``protect_source``; or the cluster failed again and again: the same call goes on.
    """
    import_ray()
    check_cluster(cluster)
    check_integer("workers", workers, low=0, advice="0 takes all that the cluster has.")
    if private is None:
        refuse_passing_home(options.get("seed"))
        private = default_cache_dir() / "protections"
    images = open_source(source) if isinstance(source, str) else source
    if isinstance(generator, str):
        generator = NoiseGenerator.from_pretrained(generator, device=options.get("device"))
    shared = images.folder.absolute() if images.files and images.folder is not None else None
    engine = partial(make_with_ray, cluster=cluster, folder=shared)
    target = place_of(out) if isinstance(out, str) else out
    return protect_source(images, target, generator, private=private, workers=workers, engine=engine, **options)


def make_with_ray(
    maker: Maker, groups: Iterable[Sequence[Task | Failed]], workers: int, *, cluster: str, folder: Path | None
) -> Iterator[list[Made | Failed]]:
    """Make the files of groups of images, in any order.

    Args:
        maker: how.
        groups: the same each time they are asked for.
        workers, cluster: as for :func:`protect_with_ray`.
        folder: that every machine must see.

    Yields:
        What became of each group.

    Raises:
        ValueError, OSError: as there.
    """
    ray = import_ray()
    with _connected(cluster, workers):
        kind = "GPU" if _computes_on_cuda(maker) else "CPU"
        there = int(ray.cluster_resources().get(kind, 0))
        if not there:
            raise ValueError(f"--cluster {cluster}: it has no {kind}. Give --device, or another cluster.")
        count = min(workers or there, there)
        stage = partial(_handed_back, maker, groups, folder, count, kind)
        done: set[int] = set()
        left = ATTEMPTS
        while True:
            before = len(done)
            try:
                for number, made in stage(frozenset(done)):
                    if isinstance(made, Exception):
                        raise made
                    if number not in done:
                        done.add(number)
                        yield made
                return
            except ray.exceptions.RayError as error:
                left = ATTEMPTS if len(done) > before else left - 1
                if not left:
                    raise OSError(
                        f"--cluster {cluster}: it failed {ATTEMPTS} times in a row ({_last_line(error)}). What is "
                        "finished is kept: the same command goes on from here."
                    ) from error


class _Sealed:
    """What passes through Ray and is shown by it nowhere: no dataclass, of which its dashboard gets all fields."""

    def __init__(self, content: Any) -> None:
        self.content = content


class Protect:
    """What an actor does for Ray Data's ``map_batches``; made once in each.

    An error of ours is handed back as a value: what Ray itself raises is then the cluster's, and tried again.
    """

    def __init__(self, maker: _Sealed, versions: Versions, folder: Path | None) -> None:
        torch.set_num_threads(1)
        self._maker: Maker = maker.content
        self._versions, self._folder = versions, folder

    def __call__(self, batch: dict[str, Sequence[_Sealed]]) -> dict[str, list[_Sealed]]:
        """Make the files of the one group in a batch, a number and its tasks."""
        number, tasks = batch["group"][0].content
        if isinstance(tasks, Exception):  # of the list
            return {"group": [_Sealed((number, tasks))]}
        try:
            check_machine(self._versions, self._folder)
            return {"group": [_Sealed((number, self._maker[tasks]))]}
        except Exception as error:  # whatever it is: raised again by the driver
            return {"group": [_Sealed((number, error))]}


def _handed_back(
    maker: Maker,
    groups: Iterable[Sequence[Task | Failed]],
    folder: Path | None,
    count: int,
    kind: str,
    done: frozenset[int],
) -> Iterator[tuple[int, list[Made | Failed] | Exception]]:
    """Let Ray Data make the groups that are not done; numbers, and what became of each."""
    import ray.data

    place = Path.cwd()

    def list_groups(batch: dict[str, Any]) -> Iterator[dict[str, list[_Sealed]]]:
        os.chdir(place)  # what the user named by a relative path lies below it
        try:
            for number, group in enumerate(groups):
                if number not in done:
                    yield {"group": [_Sealed((number, [_anywhere(task) for task in group]))]}
        except Exception as error:  # ours, as an actor's: Ray's own would be taken for the cluster's
            yield {"group": [_Sealed((-1, error))]}

    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = 1  # a group is a block: handed on when it is made, lost alone when an actor dies
    context.enable_progress_bars = False  # ours has the images
    context.print_on_execution_start = False
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    share = {"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}
    with ray.data.DataContext.current(context):
        # the list is made where the driver is, as the work goes on: tables then need not lie where the workers are
        listed = ray.data.from_items([0]).map_batches(list_groups, num_cpus=0, label_selector=here)
        made = listed.map_batches(
            Protect,
            batch_size=1,
            fn_constructor_args=(_Sealed(maker), _versions(), folder),
            compute=ray.data.ActorPoolStrategy(size=count),
            **share,
        )
        for row in made.iter_rows():
            yield row["group"].content


def _anywhere(task: Task | Failed) -> Task | Failed:
    """A task that any working folder can do."""
    if isinstance(task, Task) and isinstance(task.file, Path):
        return task._replace(file=task.file.absolute())
    return task


def check_machine(versions: Versions, folder: Path | None) -> None:
    """See that this machine can take a share.

    Args:
        versions: the driver's.
        folder: that must be seen here.

    Raises:
        ValueError: another version would make other noise, or the images are not here.
    """
    for (name, wanted), (_, ours) in zip(versions, _versions(), strict=True):
        if ours != wanted:
            raise ValueError(
                f"--cluster: {name} is {wanted} where the command runs and {ours} on {socket.gethostname()}, whose "
                "noise may be another. Install the same version everywhere."
            )
    if folder is not None and not folder.is_dir():
        raise ValueError(
            f"--cluster: SOURCE {str(folder)!r} is not there on {socket.gethostname()}. Give a folder on a disk that "
            "all machines share, under the same path; or a table, which need not be shared."
        )


def _versions() -> Versions:
    return ("semtransforms", __version__), ("torch", torch.__version__)


def import_ray() -> Any:
    """Ray.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        import ray
        import ray.data  # needs more than Ray itself
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"--cluster needs Ray ({error}). Install it on all machines: pip install 'semtransforms[ray]'"
        ) from error
    return ray


def check_cluster(cluster: str) -> None:
    """See that an address is one.

    Raises:
        ValueError: it is not.
    """
    host, colon, port = cluster.rpartition(":")
    if cluster != "auto" and not (host and colon and port.isdecimal() and "/" not in host):
        raise ValueError(
            f"--cluster must be auto or HOST:PORT, as `ray start` tells it, got {cluster!r}. From a machine outside of "
            "the cluster: ray job submit -- semtransforms protect …"
        )


def refuse_passing_home(seed: int | None) -> None:
    """See that a fresh seed will be found again by who goes on.

    Raises:
        ValueError: the command runs as a job of the cluster, on any of its machines, whose home may be gone tomorrow.
    """
    if seed is None and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        raise ValueError(
            "--cluster: as a job of Ray this runs on any machine of the cluster, where a fresh seed may be lost. Give "
            "--cache-dir on a disk that stays, or --seed-file."
        )


@contextmanager
def _connected(cluster: str, workers: int) -> Iterator[None]:
    """Be connected to a cluster, as the user is already or for this block."""
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of ours tells nobody what it does
    options = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster != "auto":
        _knock(cluster, cluster, "`ray start --head` on one machine starts one; auto finds this machine's own")
    elif ":" in (address := _remembered()):
        _knock("auto", address, "Ray remembers it for this machine: `ray stop` forgets it")
    try:
        try:
            ray.init(cluster, **options)
        except ConnectionError as error:
            if cluster != "auto":
                raise ValueError(
                    f"--cluster {cluster}: {_last_line(error)}. If it asks for a token, as of Ray 2.60 it does: set "
                    "RAY_AUTH_MODE=token, and have its ~/.ray/auth_token here."
                ) from error
            ray.init("local", num_cpus=workers or None, include_dashboard=False, **options)
    except RuntimeError as error:  # among others the versions of Ray and Python, which Ray compares
        raise ValueError(f"--cluster {cluster}: {' '.join(str(error).split())}") from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it gives up is tried again here, and told at last
    try:
        yield
    finally:
        ray.shutdown()


def _remembered() -> str:
    """Where Ray takes the cluster of this machine to be; empty where it knows of none."""
    file = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    with suppress(OSError):
        return os.environ.get("RAY_ADDRESS") or file.read_text(encoding="utf-8").strip()
    return ""


def _knock(cluster: str, address: str, remedy: str) -> None:
    """Find out in seconds that nobody is at an address: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:
        raise ValueError(f"--cluster {cluster}: no cluster answers at {address} ({error}). {remedy}.") from error


def _computes_on_cuda(maker: Maker) -> bool:
    return torch.device(maker.device or maker.generator.device).type == "cuda"


def _last_line(error: BaseException) -> str:
    return next(reversed([line.strip() for line in str(error).splitlines() if line.strip()]), type(error).__name__)
