"""Scores to experiment trackers, with the training step as x."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prefbench.trackers.base import Place, Tracker
from prefbench.trackers.event_files import TensorboardTracker
from prefbench.trackers.mlflow_api import MlflowTracker
from prefbench.trackers.wandb_api import TrackioTracker, WandbTracker

TRACKERS: Mapping[str, Callable[[Place], Tracker]] = {
    "wandb": WandbTracker,
    "trackio": TrackioTracker,
    "mlflow": MlflowTracker,
    "tensorboard": TensorboardTracker,
}
