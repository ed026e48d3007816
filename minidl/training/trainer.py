"""The training loop: epochs, evaluation, checkpoints, and a clean stop at any moment."""

import shlex
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..autograd import no_grad
from ..data import DataLoader, DataSplits
from ..errors import DivergedError
from ..nn import Module
from ..optim import ReduceLROnPlateau
from ..tensor import Tensor
from .averaging import WeightAverage
from .batches_on_device import copied_ahead
from .checkpoint import Checkpoint, save_checkpoint
from .nonfinite import origin_in_forward, spoiled
from .optimization import make_optimizer, make_schedule
from .progress import Progress, Reporter, Tally
from .run_folder import RunFolder
from .settings import Settings
from .state import RunState, load_weights, weights_of
from .step import TrainingStep, compute_losses
from .stopping import Interrupted, StopAsked, StopRequest


class Trainer:
    """Trains `model` on `splits` as `settings` say, writing to `run` if there is one.

    The run can be stopped after any step and resumed: the order of the images depends on (seed,
    epoch) alone, and a checkpoint holds weights, optimiser, schedule, random state and position.

    A last training batch of one image is left out: batch normalisation has nothing to normalise
    it by where the feature maps are 1 x 1.
    """

    def __init__(
        self, settings: Settings, splits: DataSplits, model: Module, run: RunFolder | None = None
    ) -> None:
        self.settings = settings
        self.splits = splits
        self.model = model
        self.run = run
        self.progress = Progress()
        self.stop = StopRequest()
        images = min(settings.limit or len(splits.train), len(splits.train))
        self.train_loader = DataLoader(
            splits.train,
            settings.batch_size,
            shuffle=True,
            augment=splits.augmentation,
            seed=settings.seed,
            drop_last=images % settings.batch_size == 1 and images > 1,
            limit=settings.limit,
            workers=settings.workers,
            on_bad_image="replace" if settings.on_bad_image == "skip" else "fail",
        )
        self.val_loader = DataLoader(
            splits.val,
            settings.batch_size,
            limit=settings.limit,
            workers=settings.workers,
            on_bad_image="drop" if settings.on_bad_image == "skip" else "fail",
        )
        self.optimizer = make_optimizer(settings, model)
        self.schedule = make_schedule(settings, self.optimizer, len(self.train_loader))
        self.average = None if settings.average is None else WeightAverage(model, settings.average)
        self._step = TrainingStep(settings, model, self.optimizer, self.average)
        self._parts = RunState(model, self.optimizer, self.schedule, self.average)
        self._answers = np.empty((2, 0), np.int64)  # labels and answers of the last evaluation
        self._clock = self._saved = time.monotonic()

    @property
    def stopped_early(self) -> bool:
        """Whether `early_stop` epochs have gone by since the best one."""
        patience, progress = self.settings.early_stop, self.progress
        return patience is not None and progress.epoch - progress.best_epoch >= patience

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.progress.epoch >= self.settings.epochs or self.stopped_early

    def train(self, reporter: Reporter) -> None:
        """Run to the last epoch, or until `early_stop` ends it.

        Raises:
            Interrupted: a stop was asked for; the checkpoint is written.
            DivergedError: a loss or a gradient is not finite.
            MinidlError: a file cannot be written.
        """
        self._clock = self._saved = time.monotonic()
        with self.stop.installed(reporter.stopping):
            try:
                while not self.finished:
                    self._train_epoch(reporter)
                    if self.run is not None and not self.run.last.exists():
                        self.save()  # or a crash after the first best one could not be resumed
                    with self._evaluated_weights():
                        test = self.evaluate(reporter)
                    self._close_epoch(reporter, test)
            except StopAsked:
                self._count_time()
                self.save()
                where = f"in epoch {self.progress.epoch + 1} after step {self.progress.step}"
                raise Interrupted(f"stopped {where} and saved; {self._advice()}") from None
            except KeyboardInterrupt:
                raise Interrupted(f"stopped at once, without saving; {self._advice()}") from None
            finally:
                reporter.close()

    def _train_epoch(self, reporter: Reporter) -> None:
        """The steps of the current epoch, or those that are left of it."""
        progress, loader = self.progress, self.train_loader
        reporter.start(self._title("epoch"), len(loader), done=progress.batch)
        self.model.train()
        batches = loader.batches(progress.epoch, progress.batch)
        for images, labels in copied_ahead(batches, self.settings.device):
            self.step(images, labels)
            self._count_time()
            elapsed = progress.seconds - progress.epoch_start
            progress.images_per_second = progress.train.images / elapsed
            reporter.update(progress.train, progress.images_per_second, progress.batch)
            self.stop.check()
            if self._clock - self._saved >= 60 * self.settings.save_every:
                self.save()
        if progress.train.images == 0:
            raise DivergedError(f"every step of epoch {progress.epoch + 1} had to be left out")

    def step(self, images: Tensor, labels: np.ndarray) -> float:
        """One optimiser step on images (N, C, H, W) float32 and labels (N,); returns the loss.

        Auxiliary heads and smoothed labels have their part in the step, but not in the loss that is
        returned and logged: it can be compared with that of the evaluation. Of a step that is left
        out (`on_nan`) it is NaN.

        Raises:
            DivergedError: the loss or a gradient is not finite; the weights are as they were.
        """
        progress = self.progress
        progress.lr = self.optimizer.param_groups[0]["lr"]
        result = self._step.run(images, labels, progress)
        if not isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step()
        progress.batch += 1
        progress.step += 1
        if not result.skipped:
            progress.train.add(result.loss, result.logits, labels)
        if self.run is not None:
            position = {"epoch": progress.epoch + 1, "step": progress.step, "lr": progress.lr}
            if result.skipped:
                self.run.log_skip(**position, reason=result.skipped)
            elif result.gradient_norm is None:
                self.run.log_step(**position, loss=result.loss)
            else:
                self.run.log_step(**position, loss=result.loss, grad_norm=result.gradient_norm)
        return result.loss

    def evaluate(self, reporter: Reporter) -> Tally:
        """Loss and accuracy on the validation images, with the weights that the model has.

        Raises:
            DivergedError: the loss is not finite.
        """
        tally, begun, answers = Tally(), time.monotonic(), []
        reporter.start(self._title("test"), len(self.val_loader), done=0)
        self.model.eval()
        with no_grad():
            batches = copied_ahead(self.val_loader.batches(0), self.settings.device)
            for done, (images, labels) in enumerate(batches, 1):
                losses = compute_losses(self.settings, self.model, images, labels)
                logits = losses.logits.cpu().numpy()
                tally.add(losses.own.item(), logits, labels)
                answers.append((labels, logits.argmax(axis=1)))
                if not np.isfinite(tally.loss):
                    self._explain_test_loss(tally.loss, images)
                reporter.update(tally, tally.images / (time.monotonic() - begun), done)
                self.stop.check()
        self._answers = np.concatenate(answers, axis=1)  # (2, images)
        return tally

    def _explain_test_loss(self, loss: float, images: Tensor) -> NoReturn:
        step = self.progress.step
        origin = origin_in_forward(self.model, images, lambda: self.model(images), step)
        raise DivergedError(
            f"the test loss became {loss} after step {step} (epoch {self.progress.epoch + 1}), "
            f"first in {origin}; try a smaller --lr"
        )

    def _evaluated_weights(self) -> AbstractContextManager[None]:
        """Inside this block the model has the averages as its weights, if there are any."""
        return nullcontext() if self.average is None else self.average.in_place_of_weights()

    def _close_epoch(self, reporter: Reporter, test: Tally) -> None:
        """After the evaluation: keep the figures, the checkpoints, and a line for the reader."""
        self._count_time()
        progress, train = self.progress, self.progress.train
        seconds = progress.seconds - progress.epoch_start
        skipped = f"  steps left out so far: {progress.skipped}" if progress.skipped else ""
        reporter.finish(f"{self._title('epoch')}  {train}  test {test}  {seconds:.1f} s{skipped}")
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(test.loss)
        improved = test.accuracy > progress.best_accuracy
        if improved:
            progress.best_accuracy, progress.best_epoch = test.accuracy, progress.epoch + 1
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.train, progress.epoch_start = Tally(), progress.seconds
        if self.run is None:
            return
        figures = {
            "epoch": progress.epoch,
            "step": progress.step,
            "lr": progress.lr,
            "train_loss": train.loss,
            "train_accuracy": train.accuracy,
            "val_loss": test.loss,
            "val_accuracy": test.accuracy,
            "seconds": round(seconds, 3),
            "images_per_second": round(progress.images_per_second, 2),
        }
        if (self.settings.num_classes or 0) > 5:
            figures |= {"train_top5": train.top5, "val_top5": test.top5}
        if self.settings.on_nan == "skip":
            figures["skipped"] = progress.skipped
        self.run.log_epoch(**figures)
        self.run.plot(f"{self.settings.arch} on {self.settings.data.partition(':')[0]}")
        # A crash between these repeats the epoch, and so writes the same files again.
        if improved:
            with self._evaluated_weights():
                tensors = weights_of(self.model) | self.splits.state_dict()
                save_checkpoint(self.run.best, tensors, self._state())
            self.run.write_confusion(self.splits.classes, *self._answers)
        if self.settings.keep:
            self._save_all(self.run.of_epoch(progress.epoch))
        self.save()
        if self.settings.keep:
            self.run.forget_epochs(progress.epoch - self.settings.keep)

    def _title(self, what: str) -> str:
        epochs = str(self.settings.epochs)
        return f"{what} {self.progress.epoch + 1:{len(epochs)}}/{epochs}"

    def _count_time(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now

    def _advice(self) -> str:
        if self.run is None or not self.run.last.exists():
            return "there is no checkpoint yet"
        command = f"python -m minidl.train --resume {shlex.quote(str(self.run.path))}"
        return f"go on with: {command}"

    def _state(self) -> dict[str, Any]:
        """What every checkpoint holds besides arrays."""
        return {"settings": asdict(self.settings), "progress": asdict(self.progress)}

    def save(self) -> None:
        """Write the checkpoint to resume from, if there is a run folder.

        Raises:
            DivergedError: a weight is not finite; the checkpoint before stays.
            MinidlError: the file cannot be written.
        """
        if self.run is None:
            return
        self._save_all(self.run.last)
        self._saved = time.monotonic()

    def _save_all(self, path: Path) -> None:
        if name := spoiled(self.model.state_dict()):
            raise DivergedError(
                f"{path}: not written, because {name} is not finite after step "
                f"{self.progress.step}; try a smaller --lr, or --on-nan skip"
            )
        tensors, state = self._parts.pack()
        if self.run is not None:
            state["history"] = self.run.epochs
            self.run.flush()
        save_checkpoint(path, tensors | self.splits.state_dict(), state | self._state())

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint that `save` wrote, in a trainer with its settings.

        Raises:
            CheckpointError: it does not fit the model or the optimiser, or holds weights only.
        """
        self.progress = self._parts.unpack(checkpoint)

    def load_weights(self, checkpoint: Checkpoint) -> None:
        """Load the weights that a checkpoint is evaluated with into the model.

        Raises:
            CheckpointError: names, shapes or dtypes are not the model's, or a weight is not finite.
        """
        load_weights(self.model, checkpoint.path, checkpoint.evaluated_weights)
