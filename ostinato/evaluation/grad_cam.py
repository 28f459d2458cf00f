"""Grad-CAM: the regions and frames that support a class.

Selvaraju et al. 2017, arXiv 1610.02391.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Shaped

from ostinato.evaluation.classification import EPSILON

LAYER = "map"
"""The layer whose output, (clip, frame, height, width, feature), is explained."""


def grad_cam(
    model: Any,
    inputs: Mapping[str, Shaped[np.ndarray, "clip *_"]],
    classes: Integer[np.ndarray, " clip"],
) -> list[Float[np.ndarray, "_ _ _"]]:
    """Compute heat maps for one class of each clip.

    The features of the layer `LAYER` are weighted by the mean gradient of the class's log
    probability and summed; negative sums are set to 0.

    Args:
        model: a Keras model with that layer.
        inputs: clips as the model reads them.
        classes: class index of each clip.

    Returns:
        For each clip a heat map (frame, height, width) from 0 to a maximum of 1, without padding
        frames. Height and width are those of the layer.
    """
    import tensorflow as tf

    inner = type(model)(model.input, [model.get_layer(LAYER).output, model.output])
    tensors = {name: tf.constant(values) for name, values in inputs.items()}
    with tf.GradientTape() as tape:
        tape.watch(tensors["clip"])
        features, p = inner(tensors, training=False)
        log_p = tf.math.log(tf.gather(p, classes, batch_dims=1) + EPSILON)
    gradient = tape.gradient(log_p, features)
    weights = tf.reduce_mean(gradient, axis=(1, 2, 3), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(features * weights, axis=-1)).numpy()
    stride = -(-inputs["clip"].shape[1] // heat.shape[1])  # frames for each frame of the layer
    heat = np.repeat(heat, stride, axis=1)
    maps = [clip[:n] for clip, n in zip(heat, inputs["frames"].tolist(), strict=True)]
    return [clip / max(float(clip.max()), EPSILON) for clip in maps]
