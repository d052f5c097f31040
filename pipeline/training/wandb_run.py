"""A training as a run of Weights & Biases, by `wandb`'s own variables of the environment."""

import hashlib
import logging
import os
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from pipeline.errors import SettingError
from pipeline.training.plan import TrainingPlan

if TYPE_CHECKING:
    from wandb import Run

_log = logging.getLogger(__name__)

_PROJECT = "fcn-pipeline"
# A server that is away may not keep a training that is done from its end.
_FINISH_S = 60.0


class WandbRun:
    """Implements `tracker.Tracker`."""

    _run: "Run"

    def __init__(self, plan: TrainingPlan) -> None:
        """Look for W&B; its server is asked by `begin`.

        Args:
            plan: What is trained.

        Raises:
            SettingError: The package is not installed.
        """
        self._plan = plan
        self._wandb = _package()

    @staticmethod
    def check() -> None:
        """Implement `tracker.Tracker.check`."""
        wandb = _package()
        # Without a key W&B would ask for one where there is a terminal.
        if _mode(wandb) == "online" and not _has_key(wandb):
            raise SettingError(
                "tracker=wandb: Weights & Biases has no API key here: set WANDB_API_KEY, or "
                "WANDB_MODE=offline to keep a folder for `wandb sync`"
            )

    def begin(self) -> None:
        """Begin the run, or go on with the one that an earlier command has begun."""
        wandb = self._wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=_id_of(self._plan),
            name=self._plan.settings.run_name,
            resume="allow",
            config=self._plan.settings.model_dump(mode="json", exclude_none=True),
            settings=wandb.Settings(
                # Neither what the program prints nor the code around it is anyone's business.
                console="off",
                disable_git=True,
                finish_timeout=_FINISH_S,
                finish_timeout_raises=True,
                save_code=False,
                silent=True,
            ),
        )
        _log.info("tracker=wandb: %s", self._run.dir if self._run.offline else self._run.url)

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Implement `tracker.Tracker.add`."""
        self._run.log(dict(numbers), step=step)

    def end(self, *, failed: bool) -> None:
        """Implement `tracker.Tracker.end`."""
        self._run.finish(exit_code=int(failed))


def _mode(wandb: ModuleType) -> str:
    try:
        return str(wandb.setup().settings.mode)
    except ValueError as error:  # pydantic's
        said = " ".join(str(error).split("\n")[1:3])
        raise SettingError(f"tracker=wandb: a variable WANDB_... can't be used: {said}") from error


def _has_key(wandb: ModuleType) -> bool:
    try:
        return bool(wandb.login(prompt=False))
    except wandb.Error:
        # It has one, and its server does not answer or refuses it, which is said later.
        return True


def _id_of(plan: TrainingPlan) -> str:
    """Name the run so that the same training finds it again, and no other does."""
    return hashlib.sha256(f"{plan.folder}\n{plan.fingerprint}".encode()).hexdigest()[:16]


def _package() -> ModuleType:
    try:
        # An extra, which takes a second to import.
        import wandb  # noqa: PLC0415
    except ImportError as error:
        raise SettingError(
            "tracker=wandb needs Weights & Biases' package: pip install 'fcn-pipeline[wandb]'"
        ) from error
    return wandb
