"""Open the Spark session: local by default, spark-submit's own where it launched us."""

from __future__ import annotations

import contextlib
import importlib.resources
import importlib.util
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlparse

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from pipeline.config.runtime import RuntimeParams
from pipeline.runtime.dist import build_app_zip
from pipeline.runtime.errors import JavaError, PackagingError
from pipeline.runtime.java import use_java
from pipeline.runtime.logs import event

logger = logging.getLogger(__name__)

_LOCAL_CLUSTER = re.compile(r"local-cluster\[\s*\d+\s*,\s*\d+\s*,\s*(\d+)\s*\]")


def open_session(
    app_name: str, settings: RuntimeParams, scratch: str | Path | None = None
) -> SparkSession:
    """The process's Spark session, opened on first use.

    What spark-submit or a cluster's defaults say wins over `settings`; results are the same anyway.

    Args:
        app_name: name in Spark's UI: the stage's, or the chain's.
        settings: size of the run.
        scratch: local folder for shuffles and spills of a local run, by default the system's
            temporary folder; clusters have their own.

    Returns:
        the session.

    Raises:
        JavaError: no Java that Spark runs on.
        PackagingError: a file of --py-files is not there.
    """
    is_submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if is_submitted:
        SparkContext._ensure_initialized()
        given = SparkConf()
        master = given.get("spark.master", settings.master) or ""
        _check_listed(_listed(given))
    else:
        given = None
        master = settings.master or f"local[{settings.local_cores()}]"
        _prepare_environment(master)
    options = session_options(app_name, settings, master, scratch)
    with contextlib.ExitStack() as stack:
        if not is_submitted and not os.environ.get("PIPELINE_DEBUG"):
            java = [
                options.get("spark.driver.extraJavaOptions", ""),
                stack.enter_context(_quiet_java()),
            ]
            options["spark.driver.extraJavaOptions"] = " ".join(filter(None, java))
            options["spark.log.level"] = "ERROR"
        if is_local(master):
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = SparkSession.builder
        for name, value in options.items():
            if given is None or not given.contains(name):
                builder = builder.config(name, value)
        try:
            spark = builder.getOrCreate()
        except Exception as error:
            if "JAVA_GATEWAY_EXITED" in str(error):
                raise JavaError(
                    f"Java at {os.environ.get('JAVA_HOME')} ended before Spark was up: look at its "
                    "messages above, and lower runtime.driver_memory if it could not get memory."
                ) from error
            raise
    _ship_code(spark, master)
    event(logger, "session_opened", level=logging.DEBUG, app=app_name, master=master)
    return spark


def is_local(master: str) -> bool:
    """Whether the executors run on this machine with this machine's Python."""
    return master.startswith("local")


def session_options(
    app_name: str, settings: RuntimeParams, master: str, scratch: str | Path | None = None
) -> dict[str, str]:
    """Spark's settings for a run.

    Args:
        app_name: name in Spark's UI.
        settings: size of the run.
        master: Spark master.
        scratch: local folder for shuffles and spills of a local run.

    Returns:
        setting -> value; the caller drops those that spark-submit was given.
    """
    options = {
        "spark.master": master,
        "spark.app.name": app_name,
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(settings.shuffle_partitions),
        # Spark takes the output of a scan for as small as its list of files, and would collect a
        # table of all images to the driver to broadcast it. Stages say themselves what is small.
        "spark.sql.autoBroadcastJoinThreshold": "-1",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(settings.arrow_batch_rows),
        "spark.sql.ansi.enabled": "true",
        "spark.ui.showConsoleProgress": "false",
    }
    if not master:
        del options["spark.master"]
    if master.startswith("local["):
        options |= {
            "spark.ui.enabled": "false",
            "spark.driver.memory": settings.driver_memory,
            "spark.driver.extraJavaOptions": settings.java_options,
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
        }
    else:
        cluster = _LOCAL_CLUSTER.match(master)
        options["spark.executor.memory"] = (
            f"{cluster.group(1)}m" if cluster else settings.worker_memory
        )
        options["spark.executor.memoryOverhead"] = settings.worker_python_memory
    if is_local(master) and scratch is not None:
        folder = Path(scratch).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        options["spark.local.dir"] = str(folder)
        options["spark.sql.warehouse.dir"] = (folder / "warehouse").as_uri()
    return options


def _prepare_environment(master: str) -> None:
    """Java and Python for the processes that Spark's scripts will start."""
    use_java()
    if master.startswith("local["):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    if is_local(master):
        # Workers start with this variable and nothing else of our sys.path.
        home = str(_code_home())
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if home not in paths:
            os.environ["PYTHONPATH"] = os.pathsep.join([home, *filter(None, paths)])


@contextlib.contextmanager
def _quiet_java() -> Iterator[str]:
    """Java options that keep Spark's logs to errors; the file must live until Java has read it."""
    resource = importlib.resources.files("pipeline.runtime") / "log4j2.properties"
    with importlib.resources.as_file(resource) as path:
        yield f"-Dlog4j2.configurationFile={path.absolute().as_uri()}"


def _code_home() -> Path:
    """What has to be on sys.path for `pipeline` to be found: the repository, or the zip."""
    spec = importlib.util.find_spec("pipeline")
    if spec is None or not spec.submodule_search_locations:
        raise PackagingError("The package `pipeline` cannot be found: run from the repository.")
    return Path(next(iter(spec.submodule_search_locations))).parent.absolute()


def _listed(conf: SparkConf) -> list[str]:
    """What --py-files named."""
    return [path for path in (conf.get("spark.submit.pyFiles") or "").split(",") if path]


def _check_listed(paths: list[str]) -> None:
    """Fail before Spark starts, which would tell in forty lines that a file is not there.

    Raises:
        PackagingError: a local file of --py-files does not exist.
    """
    for path in paths:
        parts = urlparse(path)
        if parts.scheme in ("", "file", "local") and not Path(parts.path).exists():
            raise PackagingError(
                f"--py-files names {path}, which does not exist: build it with `make dist`."
            )


def _ship_code(spark: SparkSession, master: str) -> None:
    """Give the executors the code that this driver runs, unless --py-files already did."""
    context = spark.sparkContext
    is_shipped = any(path.endswith(".zip") for path in _listed(context.getConf()))
    if is_shipped or master == "local" or master.startswith("local["):
        return
    home = _code_home()
    if home.is_file():
        context.addPyFile(str(home))
        return
    with tempfile.TemporaryDirectory(prefix="annotations-code-") as folder:
        context.addPyFile(str(build_app_zip(Path(folder) / "app.zip")))


@contextlib.contextmanager
def watch_tasks(spark: SparkSession, tell: Callable[[int, int], None]) -> Iterator[None]:
    """Report the running jobs' finished and total tasks twice a second.

    Args:
        spark: the session.
        tell: ``tell(done, total)``.
    """
    tracker = spark.sparkContext.statusTracker()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            stages = [tracker.getStageInfo(i) for i in tracker.getActiveStageIds()]
            known = [s for s in stages if s is not None]
            if known:
                tell(sum(s.numCompletedTasks for s in known), sum(s.numTasks for s in known))

    thread = threading.Thread(target=watch, name="watch_tasks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
