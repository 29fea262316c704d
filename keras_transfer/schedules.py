"""Schedules: how the learning rate changes over a phase, and how it differs between blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_transfer.recipe import Phase


@keras.saving.register_keras_serializable("keras_transfer")
class WarmUpDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from zero over the warm-up, then decays to zero (cosine, linear) or stays (constant).

    Source: Loshchilov & Hutter, SGDR (2017) for the cosine; Goyal et al. (2017) for the warm-up.
    """

    def __init__(self, peak: float, steps: int, warmup_steps: int, decay: str):
        super().__init__()
        self.peak, self.steps, self.warmup_steps, self.decay = peak, steps, warmup_steps, decay

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step."""
        step = ops.cast(step, "float32")
        # Step 0 already moves the weights: a first step at rate zero would be lost.
        rising = (step + 1.0) / max(self.warmup_steps, 1)
        share = ops.clip((step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1), 0.0, 1.0)
        if self.decay == "cosine":
            falling = 0.5 * (1.0 + ops.cos(3.141592653589793 * share))
        elif self.decay == "linear":
            falling = 1.0 - share
        else:
            falling = ops.ones_like(share)
        return self.peak * ops.where(step < self.warmup_steps, rising, falling)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"peak": self.peak, "steps": self.steps, "warmup_steps": self.warmup_steps, "decay": self.decay}


class PacedAdamW(keras.optimizers.AdamW):
    """AdamW in which each variable has its own share of the learning rate (layer-wise decay).

    Weight decay goes at the same pace, as in an optimizer with a group of parameters a layer: it is a share of the
    learning rate, and a slow layer that decayed at full pace would lose what its gradients cannot restore.

    Source: Loshchilov & Hutter, Decoupled Weight Decay (2019); Howard & Ruder, ULMFiT (2018) for layer-wise rates.
    """

    def __init__(self, learning_rate: Any, weight_decay: float = 0.0, paces: Mapping[str, float] | None = None):
        super().__init__(learning_rate, weight_decay)
        self._paces = dict(paces or {})
        self._pace_of: list[float] = []

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's update, at its own pace: what Keras computes, in one pass over memory instead of ten.

        Most of a small batch's step goes into the update of every weight (MiniLM, 8 texts: half of it). Keras writes a
        tensor for each operation of the formula; TensorFlow's fused kernel reads and writes each number once.
        """
        # Keras hands over backend variables, which only its own index tells apart (tests/contract/test_keras_facts.py).
        index = self._get_variable_index(variable)
        rate = tf.cast(learning_rate * self._pace_of[index], variable.dtype)
        if self.weight_decay and self._use_weight_decay(variable):
            variable.assign(variable * (1.0 - rate * self.weight_decay))
        done = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.cast(self.beta_1, variable.dtype) ** done,
            beta2_power=tf.cast(self.beta_2, variable.dtype) ** done,
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing: `update_step` does it, since Keras's own decays every variable at the full rate."""

    def build(self, variables: Any) -> None:
        """Makes the moments of the variables that will be updated."""
        self._pace_of = [self._paces.get(variable.path, 1.0) for variable in variables]
        super().build(variables)


def optimizer_for(
    phase: Phase, variables: Sequence[Any], steps: int, paces: Mapping[str, float] | None = None
) -> keras.optimizers.Optimizer:
    """The optimizer of a phase with its learning-rate schedule.

    Weight decay spares vectors and scalars (biases, norms), as He et al. (Bag of Tricks, 2019) advise; a phase that
    leaves it open (None) has none. Gradients are clipped by the trainer, over all devices, not here.
    """
    rate = phase.learning_rate
    if rate is None:
        raise ValueError("learning_rate: expected a number above 0. Received: None. Resolve the phase first.")
    warmup_steps = int(round(steps * phase.warmup_share))
    decay = "cosine" if phase.schedule == "auto" else phase.schedule
    optimizer = PacedAdamW(
        learning_rate=WarmUpDecay(rate, steps, warmup_steps, decay),
        weight_decay=phase.weight_decay or 0.0,
        paces=paces,
    )
    if phase.weight_decay:
        spared = [variable for variable in variables if len(variable.shape) < 2]
        optimizer.exclude_from_weight_decay(var_list=spared)
    return optimizer
