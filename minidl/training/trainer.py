"""The training loop: steps, evaluation, checkpoints, and a clean stop at any moment."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

import numpy as np

import minidl as md
from minidl.data import DataLoader, DataSplits
from minidl.errors import CheckpointError, MinidlError
from minidl.nn import Module
from minidl.training.checkpoint import save_checkpoint
from minidl.training.progress import Reporter
from minidl.training.recipes import Settings
from minidl.training.run_folder import RunFolder

FORMAT = 1
OPTIMIZER_PREFIX = "optimizer/"
WARMUP_FRACTION = 0.05


class Interrupted(MinidlError):
    """The run was asked to stop (Ctrl-C, SIGTERM) and has saved itself."""


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a flag, so that a step is never cut in half.

    A second one raises KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals inside this block."""
        signals = (signal.SIGINT, signal.SIGTERM)
        previous = [signal.signal(number, self._handle) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, previous, strict=True):
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@dataclass
class Progress:
    """Where a run stands; `batch` counts the batches of the current epoch that are done."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    images: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0


def make_optimizer(settings: Settings, model: Module) -> md.optim.Optimizer:
    """The optimiser that `settings` asks for, over all parameters of `model`."""
    parameters = list(model.parameters())
    lr, weight_decay = settings.lr, settings.weight_decay
    match settings.optimizer:
        case "sgd":
            return md.optim.SGD(parameters, lr, settings.momentum, weight_decay=weight_decay)
        case "adam":
            return md.optim.Adam(parameters, lr, weight_decay=weight_decay)
        case "adamw":
            return md.optim.AdamW(parameters, lr, weight_decay=weight_decay)
        case "rmsprop":
            return md.optim.RMSprop(
                parameters, lr, momentum=settings.momentum, weight_decay=weight_decay
            )
    raise ValueError(f"unknown optimizer {settings.optimizer!r}")


def make_schedule(
    settings: Settings, optimizer: md.optim.Optimizer, steps_per_epoch: int
) -> md.optim.Schedule | md.optim.ReduceLROnPlateau:
    """The learning rate over the run, in steps (plateau: in epochs).

    All but plateau rise linearly over the first 5 % of the steps. Then, over what is left: step
    divides by 10 after each third, multistep after 50 % and 75 %, exponential ends at 1 %,
    polynomial falls linearly to 0, cosine follows half a cosine to 0.
    """
    total = max(1, settings.epochs * steps_per_epoch)
    warmup = max(1, round(total * WARMUP_FRACTION))
    rest = max(1, total - warmup)
    schedule: md.optim.Schedule
    match settings.schedule:
        case "plateau":
            return md.optim.ReduceLROnPlateau(optimizer, factor=0.1, patience=2)
        case "constant":
            schedule = md.optim.MultiStepLR(optimizer, [])
        case "step":
            schedule = md.optim.StepLR(optimizer, math.ceil(rest / 3))
        case "multistep":
            schedule = md.optim.MultiStepLR(optimizer, [round(rest * 0.5), round(rest * 0.75)])
        case "exponential":
            schedule = md.optim.ExponentialLR(optimizer, 0.01 ** (1 / rest))
        case "polynomial":
            schedule = md.optim.PolynomialLR(optimizer, rest)
        case "cosine":
            schedule = md.optim.CosineAnnealingLR(optimizer, rest)
        case _:
            raise ValueError(f"unknown schedule {settings.schedule!r}")
    return md.optim.LinearWarmup(schedule, warmup)


class Trainer:
    """Trains `model` on `splits` as `settings` say, reporting to `reporter`, writing to `run`.

    The run can be stopped after any step and resumed: the order of the images depends on (seed,
    epoch) alone, and a checkpoint holds weights, optimiser, schedule, random state and position.
    """

    def __init__(
        self, settings: Settings, splits: DataSplits, model: Module, run: RunFolder | None = None
    ) -> None:
        self.settings = settings
        self.model = model
        self.run = run
        self.progress = Progress()
        self.stop = StopRequest()
        self.train_loader = DataLoader(
            splits.train,
            settings.batch_size,
            shuffle=True,
            augment=True,
            seed=settings.seed,
            limit=settings.limit,
        )
        self.val_loader = DataLoader(splits.val, settings.batch_size, limit=settings.limit)
        self.optimizer = make_optimizer(settings, model)
        self.schedule = make_schedule(settings, self.optimizer, len(self.train_loader))

    def train(self, reporter: Reporter) -> None:
        """Run to the last epoch.

        Raises:
            Interrupted: a stop was asked for; the checkpoint is written.
            MinidlError: the loss is no longer finite, or a file cannot be written.
        """
        with self.stop.installed():
            try:
                while self.progress.epoch < self.settings.epochs:
                    self._epoch(reporter)
            finally:
                reporter.close()

    def _epoch(self, reporter: Reporter) -> None:
        progress, total = self.progress, len(self.train_loader)
        begun, seen = time.monotonic(), progress.images
        before = progress.seconds
        reporter.start(
            f"epoch {progress.epoch + 1}/{self.settings.epochs}", total, done=progress.batch
        )
        self.model.train()
        for images, labels in self.train_loader.batches(progress.epoch, progress.batch):
            self.step(images, labels)
            elapsed = time.monotonic() - begun
            progress.seconds = before + elapsed
            rate = (progress.images - seen) / elapsed
            mean_loss = progress.loss_sum / progress.images
            reporter.update(mean_loss, progress.correct / progress.images, rate, progress.batch)
            self._stop_if_asked()
        val_loss, val_accuracy = self.evaluate()
        progress.seconds = before + time.monotonic() - begun
        self._end_epoch(reporter, val_loss, val_accuracy, (progress.images - seen), begun)

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        """One optimiser step on images (N, C, H, W) float32 and labels (N,); returns the loss."""
        progress = self.progress
        device = self.settings.device
        logits = self.model(md.as_tensor(images, device=device))  # (N, classes)
        loss = md.functional.cross_entropy(logits, md.as_tensor(labels, device=device))
        value = float(loss)
        if not math.isfinite(value):
            raise MinidlError(
                f"the loss became {value} in step {progress.step + 1} (epoch "
                f"{progress.epoch + 1}, learning rate {self.optimizer.param_groups[0]['lr']:.2g}); "
                "try a smaller --lr"
            )
        self.optimizer.zero_grad()
        loss.backward()
        lr = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        if not isinstance(self.schedule, md.optim.ReduceLROnPlateau):
            self.schedule.step()
        progress.batch += 1
        progress.step += 1
        progress.images += len(labels)
        progress.loss_sum += value * len(labels)
        progress.correct += int((logits.detach().numpy().argmax(axis=1) == labels).sum())
        if self.run is not None:
            self.run.log(
                {"kind": "step", "step": progress.step, "epoch": progress.epoch + 1}
                | {"loss": value, "lr": lr}
            )
        return value

    def evaluate(self) -> tuple[float, float]:
        """Mean loss and accuracy on the validation images."""
        loss_sum, correct, images_seen = 0.0, 0, 0
        self.model.eval()
        with md.no_grad():
            for images, labels in self.val_loader.batches(0):
                logits = self.model(md.as_tensor(images, device=self.settings.device))
                targets = md.as_tensor(labels, device=self.settings.device)
                loss_sum += float(md.functional.cross_entropy(logits, targets)) * len(labels)
                correct += int((logits.detach().numpy().argmax(axis=1) == labels).sum())
                images_seen += len(labels)
                self._stop_if_asked()
        return loss_sum / images_seen, correct / images_seen

    def _end_epoch(
        self, reporter: Reporter, val_loss: float, val_accuracy: float, images: int, begun: float
    ) -> None:
        progress = self.progress
        seconds = time.monotonic() - begun
        train_loss, train_accuracy = (
            progress.loss_sum / progress.images,
            progress.correct / progress.images,
        )
        lr = self.optimizer.param_groups[0]["lr"]
        if isinstance(self.schedule, md.optim.ReduceLROnPlateau):
            self.schedule.step(val_loss)
        record = {
            "kind": "epoch",
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "lr": lr,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 2),
        }
        reporter.finish(
            f"epoch {progress.epoch + 1}/{self.settings.epochs}  "
            f"loss {train_loss:.4f}  accuracy {train_accuracy:.1%}  "
            f"test loss {val_loss:.4f}  test accuracy {val_accuracy:.1%}  {seconds:.1f} s"
        )
        improved = val_accuracy > progress.best_accuracy
        if improved:
            progress.best_accuracy, progress.best_epoch = val_accuracy, progress.epoch + 1
        progress.epoch += 1
        progress.batch = progress.images = progress.correct = 0
        progress.loss_sum = 0.0
        if self.run is not None:
            self.run.log(record)
            self.save()
            if improved:
                save_checkpoint(self.run.best, self._weights(), self._state())

    def _stop_if_asked(self) -> None:
        if not self.stop.requested:
            return
        if self.run is None:
            raise Interrupted("stopped; nothing was saved")
        self.save()
        raise Interrupted(
            f"stopped in epoch {self.progress.epoch + 1} after step {self.progress.step}; saved "
            f"{self.run.last}; go on with: python -m minidl.train --resume {self.run.path}"
        )

    def _weights(self) -> dict[str, np.ndarray]:
        return {name: tensor.detach().numpy() for name, tensor in self.model.state_dict().items()}

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds besides arrays."""
        return {
            "format": FORMAT,
            "settings": self.settings.to_json(),
            "progress": asdict(self.progress),
        }

    def save(self) -> None:
        """Write the checkpoint to resume from."""
        if self.run is None:
            raise ValueError("Trainer.save: this trainer has no run folder")
        tensors = self._weights()
        scalars: dict[str, dict[str, Any]] = {}
        optimizer = self.optimizer.state_dict()
        for index, values in optimizer["state"].items():
            for name, value in values.items():
                if np.isscalar(value):
                    scalars.setdefault(str(index), {})[name] = value
                else:
                    tensors[f"{OPTIMIZER_PREFIX}{index}/{name}"] = value
        state = self._state() | {
            "optimizer": {"state": scalars, "param_groups": optimizer["param_groups"]},
            "schedule": self.schedule.state_dict(),
            "random": md.get_rng_state(),
        }
        save_checkpoint(self.run.last, tensors, state)

    def restore(self, tensors: dict[str, np.ndarray], state: dict[str, Any]) -> None:
        """Continue from a checkpoint that `save` wrote.

        Raises:
            CheckpointError: it does not fit the model or the optimiser.
        """
        self.load_weights(tensors)
        if "optimizer" not in state:
            raise CheckpointError(
                "this checkpoint holds weights only; resume from the run's last.safetensors"
            )
        optimizer = state["optimizer"]
        restored = {index: dict(values) for index, values in optimizer["state"].items()}
        for name, array in tensors.items():
            if name.startswith(OPTIMIZER_PREFIX):
                index, key = name.removeprefix(OPTIMIZER_PREFIX).split("/")
                restored.setdefault(index, {})[key] = array
        groups = optimizer["param_groups"]
        try:
            self.optimizer.load_state_dict({"state": restored, "param_groups": groups})
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        self.schedule.load_state_dict(state["schedule"])
        md.set_rng_state(state["random"])
        self.progress = Progress(**state["progress"])

    def load_weights(self, tensors: dict[str, np.ndarray]) -> None:
        """Load a checkpoint's weights into the model.

        Raises:
            CheckpointError: names or shapes do not match the model's.
        """
        weights = {
            name: md.from_numpy(array)
            for name, array in tensors.items()
            if not name.startswith(OPTIMIZER_PREFIX)
        }
        try:
            self.model.load_state_dict(weights)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
