"""MLflow, by its client alone: nothing of it is global."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from jaxfood.errors import UserError
from jaxfood.extras import require
from jaxfood.training.trackers.writer import PROJECT, Outcome, Scalars, Tracked, going_on, in_one_line

_MOST_PARAMS = 100  # that it takes at once
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_STATUS: dict[Outcome, str] = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


def check_mlflow() -> None:
    """Check that its server, or the store that it keeps in a file, answers.

    Raises:
        UserError: it does not, or MLflow is not installed.
    """
    require("mlflow", "logging.mlflow = true", extra="mlflow")
    _client_that_answers()


class MLflow:
    """A run at MLFLOW_TRACKING_URI, or where MLflow itself would keep it; its id is in RUN/trackers.json."""

    def __init__(self, run: Tracked) -> None:
        from mlflow.exceptions import MlflowException

        self._client = _client_that_answers()
        try:
            with _no_retries():
                self._begin(run)
        except MlflowException as error:
            raise _unreachable(error) from error

    def _begin(self, run: Tracked) -> None:
        stored = self._find(run)
        if stored:
            self._id = stored
            self._client.update_run(stored, "RUNNING")
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
            experiment = self._client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment else self._client.create_experiment(name)
            tags = {"jaxfood.folds": run.group} if run.group else {}
            self._id = self._client.create_run(number, run_name=run.name, tags=tags).info.run_id
            run.store("mlflow", self._id)
        self._add_settings(run.settings)
        run.say(f"mlflow: run {self._id} in {self._client.tracking_uri}")
        if not stored:
            for step, values in run.epochs.items():
                self.add_scalars(values, step)

    def _find(self, run: Tracked) -> str:
        """The id of this run; "" where the store has none."""
        from mlflow.exceptions import MlflowException

        stored = run.stored("mlflow")
        if not stored:
            return ""
        try:
            self._client.get_run(stored)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            run.say(
                f"mlflow: {self._client.tracking_uri} has no run {stored}, which this one was: beginning anew there"
            )
            return ""
        return stored

    def _add_settings(self, settings: Mapping[str, Any]) -> None:
        """As parameters; what a resumed run has changed becomes a tag, as MLflow changes no parameter."""
        from mlflow.entities import Param, RunTag

        there = self._client.get_run(self._id).data.params
        now = {name: str(value) for name, value in settings.items()}
        new = [Param(name, value) for name, value in now.items() if name not in there]
        changed = [RunTag(name, value) for name, value in now.items() if there.get(name, value) != value]
        for start in range(0, len(new), _MOST_PARAMS):
            self._client.log_batch(self._id, params=new[start : start + _MOST_PARAMS])
        if changed:
            self._client.log_batch(self._id, tags=changed)

    def add_scalars(self, values: Scalars, step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with going_on("mlflow"):
            self._client.log_batch(self._id, [Metric(name, value, now, step) for name, value in values.items()])

    def add_picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        with going_on("mlflow"):
            self._client.log_image(self._id, pixels, artifact_file=f"{name}/{step:08}.png")

    def close(self, outcome: Outcome) -> None:
        with going_on("mlflow"):
            self._client.set_terminated(self._id, _STATUS[outcome])


def _client_that_answers() -> Any:
    """A client whose store answers."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        with _no_retries():
            client = MlflowClient()
            client.search_experiments(max_results=1)
    except (MlflowException, ImportError) as error:  # a database's driver may be missing
        raise _unreachable(error) from error
    return client


def _unreachable(error: object) -> UserError:
    where = os.environ.get("MLFLOW_TRACKING_URI") or "its store in this folder"
    return UserError(
        f"logging.mlflow = true: MLflow cannot reach {where} ({in_one_line(error)}): check MLFLOW_TRACKING_URI and "
        "the network, or leave it out"
    )


@contextmanager
def _no_retries() -> Iterator[None]:
    """At the start a server that does not answer is said at once; MLflow would try for four minutes."""
    before = os.environ.get(_RETRIES)
    os.environ.setdefault(_RETRIES, "0")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_RETRIES, None)
