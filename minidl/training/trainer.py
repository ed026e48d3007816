"""The training loop: steps, evaluation, checkpoints, and a clean stop at any moment."""

import math
import shlex
import textwrap
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..data import DataLoader, DataSplits
from ..device import to_device
from ..dtypes import float32
from ..errors import CheckpointError, DivergedError, MinidlError
from ..functional import cross_entropy, stack
from ..io.safetensors import OPTIMIZER_PREFIX
from ..nn import Module
from ..optim import ReduceLROnPlateau
from ..precision import autocast
from ..random import get_rng_state, set_rng_state
from ..tensor import Tensor, from_numpy
from .batches_on_device import copied_ahead
from .checkpoint import Checkpoint, from_plain, save_checkpoint
from .optimization import make_optimizer, make_schedule
from .progress import Reporter, Tally
from .run_folder import RunFolder
from .settings import Settings
from .stopping import Interrupted, StopRequest

# Of the loss of an auxiliary head: Szegedy et al., CVPR 2015, section 5.
AUXILIARY_WEIGHT = 0.3


@dataclass
class Progress:
    """Where a run stands.

    `epoch` counts the epochs that are over, `batch` the batches of the current one, `step` all
    batches. `train` is over the current epoch so far, `lr` and `images_per_second` are those of the
    last step. With --amp fp16 losses are multiplied by `loss_scale`, which is halved whenever a
    gradient overflows and doubled after 2000 `steps_in_range`. `seconds` is the time spent on the
    run, `epoch_start` what it was when the current epoch began.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    train: Tally = field(default_factory=Tally)
    lr: float = 0.0
    images_per_second: float = 0.0
    loss_scale: float = 65536.0
    steps_in_range: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    epoch_start: float = 0.0


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
        )
        self.val_loader = DataLoader(splits.val, settings.batch_size, limit=settings.limit)
        self.optimizer = make_optimizer(settings, model)
        self.schedule = make_schedule(settings, self.optimizer, len(self.train_loader))
        self._clock = time.monotonic()

    def train(self, reporter: Reporter) -> None:
        """Run to the last epoch.

        Raises:
            Interrupted: a stop was asked for; the checkpoint is written.
            DivergedError: a loss is no longer finite.
            MinidlError: a file cannot be written.
        """
        self._clock = time.monotonic()
        with self.stop.installed(reporter.stopping):
            try:
                while self.progress.epoch < self.settings.epochs:
                    self._train_epoch(reporter)
                    self._close_epoch(reporter, self.evaluate(reporter))
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
            self._stop_if_asked()

    def step(self, images: Tensor, labels: np.ndarray) -> float:
        """One optimiser step on images (N, C, H, W) float32 and labels (N,); returns the loss.

        A GPU is given the whole step before its loss is waited for.

        Auxiliary heads have their part in the step, but not in the loss that is returned and
        logged: it can be compared with that of the evaluation, which has none.

        Raises:
            DivergedError: the loss is not finite; on the CPU the weights are as they were.
        """
        progress = self.progress
        progress.lr = self.optimizer.param_groups[0]["lr"]
        logits, loss, *auxiliary = self._forward(images, labels)
        own_loss = loss.detach()
        for other in auxiliary:
            loss = loss + AUXILIARY_WEIGHT * other
        if self.settings.device == "cpu":
            self._check_finite("loss", float(loss), progress.step + 1)
        self.optimizer.zero_grad()
        if self.settings.amp == "fp16":
            (loss * progress.loss_scale).backward()
            if self._gradients_in_range():
                self.optimizer.step()
        else:
            loss.backward()
            self.optimizer.step()
        value = float(own_loss)
        self._check_finite("loss", float(loss), progress.step + 1)
        if not isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step()
        progress.batch += 1
        progress.step += 1
        progress.train.add(value, logits.detach().cpu().numpy(), labels)
        if self.run is not None:
            epoch, step, lr = progress.epoch + 1, progress.step, progress.lr
            self.run.log_step(epoch=epoch, step=step, lr=lr, loss=value)
        return value

    def evaluate(self, reporter: Reporter) -> Tally:
        """Loss and accuracy on the validation images.

        Raises:
            Interrupted: a stop was asked for.
            DivergedError: the loss is not finite.
        """
        tally, begun = Tally(), time.monotonic()
        reporter.start(self._title("test"), len(self.val_loader), done=0)
        self.model.eval()
        with no_grad():
            batches = copied_ahead(self.val_loader.batches(0), self.settings.device)
            for done, (images, labels) in enumerate(batches, 1):
                logits, loss, *_ = self._forward(images, labels)
                tally.add(float(loss), logits.cpu().numpy(), labels)
                reporter.update(tally, tally.images / (time.monotonic() - begun), done)
                self._stop_if_asked()
        self._check_finite("test loss", tally.loss, self.progress.step)
        return tally

    def _gradients_in_range(self) -> bool:
        """Undo the scale of the loss; whether all gradients are finite. Adapts the scale."""
        progress = self.progress
        with no_grad():
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            sums = [gradient.mul_(1 / progress.loss_scale).sum() for gradient in gradients]
            finite = bool(stack(sums).isfinite().all())
        progress.steps_in_range = progress.steps_in_range + 1 if finite else 0
        if not finite:
            progress.loss_scale /= 2
        elif progress.steps_in_range % 2000 == 0:
            progress.loss_scale *= 2
        return finite

    def _forward(self, images: Tensor, labels: np.ndarray) -> list[Tensor]:
        """The network's logits (N, classes), its loss, and those of its auxiliary heads if any."""
        precision = None if self.settings.amp == "off" else self.settings.amp
        try:
            with autocast(precision):
                output = self.model(images)
        except ValueError as error:  # say, batch normalisation of one image's 1 x 1 features
            raise MinidlError(f"{self.settings.arch}: {error}") from error
        heads = output if isinstance(output, tuple) else (output,)
        targets = from_numpy(labels)  # checked here, and then copied
        heads = tuple(logits.to(float32) for logits in heads)
        return [heads[0], *(cross_entropy(logits, targets) for logits in heads)]

    def _check_finite(self, name: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise DivergedError(
                f"the {name} became {value} in step {step} (epoch {self.progress.epoch + 1}, "
                f"learning rate {self.progress.lr:.2g}); try a smaller --lr"
            )

    def _close_epoch(self, reporter: Reporter, test: Tally) -> None:
        """After the evaluation: keep the figures, the checkpoints, and a line for the reader."""
        self._count_time()
        progress, train = self.progress, self.progress.train
        seconds = progress.seconds - progress.epoch_start
        reporter.finish(
            f"{self._title('epoch')}  loss {train.loss:#.4g}  accuracy {train.accuracy:.1%}  "
            f"test loss {test.loss:#.4g}  accuracy {test.accuracy:.1%}  {seconds:.1f} s"
        )
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(test.loss)
        improved = test.accuracy > progress.best_accuracy
        if improved:
            progress.best_accuracy, progress.best_epoch = test.accuracy, progress.epoch + 1
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.train, progress.epoch_start = Tally(), progress.seconds
        if self.run is None:
            return
        self.run.log_epoch(
            epoch=progress.epoch,
            step=progress.step,
            lr=progress.lr,
            train_loss=train.loss,
            train_accuracy=train.accuracy,
            val_loss=test.loss,
            val_accuracy=test.accuracy,
            seconds=round(seconds, 3),
            images_per_second=round(progress.images_per_second, 2),
        )
        self.run.plot(f"{self.settings.arch} on {self.settings.data.partition(':')[0]}")
        # A crash between the two repeats this epoch, and so writes the same best checkpoint again.
        if improved:
            tensors = self._weights() | self.splits.state_dict()
            save_checkpoint(self.run.best, tensors, self._state())
        self.save()

    def _title(self, what: str) -> str:
        return f"{what} {self.progress.epoch + 1}/{self.settings.epochs}"

    def _count_time(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now

    def _stop_if_asked(self) -> None:
        if not self.stop.requested:
            return
        self._count_time()
        self.save()
        where = f"in epoch {self.progress.epoch + 1} after step {self.progress.step}"
        raise Interrupted(f"stopped {where} and saved; {self._advice()}")

    def _advice(self) -> str:
        if self.run is None or not self.run.last.exists():
            return "there is no checkpoint yet"
        command = f"python -m minidl.train --resume {shlex.quote(str(self.run.path))}"
        return f"go on with: {command}"

    def _weights(self) -> dict[str, np.ndarray]:
        return {name: tensor.cpu().numpy() for name, tensor in self.model.state_dict().items()}

    def _state(self) -> dict[str, Any]:
        """What every checkpoint holds besides arrays."""
        return {"settings": asdict(self.settings), "progress": asdict(self.progress)}

    def save(self) -> None:
        """Write the checkpoint to resume from, if there is a run folder."""
        if self.run is None:
            return
        tensors = self._weights() | self.splits.state_dict()
        numbers: dict[str, dict[str, Any]] = {}
        for index, values in self.optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if np.isscalar(value):
                    numbers.setdefault(str(index), {})[name] = value
                else:
                    tensors[f"{OPTIMIZER_PREFIX}{index}/{name}"] = to_device(value, "cpu")
        state = self._state() | {
            "optimizer": numbers,
            "schedule": self.schedule.state_dict(),
            "random": get_rng_state(),
        }
        save_checkpoint(self.run.last, tensors, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint that `save` wrote, in a trainer with its settings.

        Raises:
            CheckpointError: it does not fit the model or the optimiser, or holds weights only.
        """
        self.load_weights(checkpoint)
        state = checkpoint.state
        if "optimizer" not in state:
            raise CheckpointError(
                f"{checkpoint.path}: holds weights only; resume from last.safetensors beside it"
            )
        try:
            optimizer: dict[str, dict[str, Any]] = {}
            for index, numbers in state["optimizer"].items():
                optimizer[index] = {name: int(number) for name, number in numbers.items()}
            for name, array in checkpoint.tensors.items():
                if name.startswith(OPTIMIZER_PREFIX):
                    index, key = name.removeprefix(OPTIMIZER_PREFIX).split("/")
                    optimizer.setdefault(index, {})[key] = array
            # The options in the groups follow from the settings and the schedule.
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
            self.schedule.load_state_dict(state["schedule"])
            set_rng_state(state["random"])
            self.progress = from_plain(Progress, state["progress"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{checkpoint.path}: the state in its header is damaged "
                f"({type(error).__name__}: {error})"
            ) from error

    def load_weights(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint's weights into the model.

        Raises:
            CheckpointError: names, shapes or dtypes are not the model's, or a weight is not finite.
        """
        own = self._weights()
        weights = {
            name: array
            for name, array in checkpoint.tensors.items()
            if "/" not in name  # as in optimizer/0/velocity or preprocess/shift
        }
        for name, array in weights.items():
            if name in own and array.dtype != own[name].dtype:
                raise CheckpointError(
                    f"{checkpoint.path}: {name} is {array.dtype}, expected {own[name].dtype}"
                )
            if not np.isfinite(array).all():
                raise CheckpointError(f"{checkpoint.path}: {name} holds NaN or infinite values")
        try:
            self.model.load_state_dict({n: from_numpy(array) for n, array in weights.items()})
        except ValueError as error:
            reason = textwrap.shorten(str(error), 300, placeholder=" ...")
            raise CheckpointError(f"{checkpoint.path}: {reason}") from error
