"""A neural Turing machine: a controller that reads and writes a memory by content and location.

Graves et al. 2014, arXiv 1410.5401. The memory begins with a constant, and the first read vectors
and weights are learned, as in Collier and Beel 2018, arXiv 1807.08518. Heads read the memory of the
step before, then they write. Input: (batch, step, feature).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from jaxtyping import Float
from keras import ops

from ostinato import store
from ostinato.memory.dataset.loader import ModelData
from ostinato.memory.layers import NORMS, MemoryModel, cell_model, fit, save
from ostinato.training import keras_model
from ostinato.units import NumLayers, Units

__all__ = ["build", "fit", "restore", "save"]

FIRST_CONTENT = 1e-6
LARGEST = 20.0  # absolute value of what the controller gives to a head


def build(
    data: ModelData,
    *,
    controller: Literal["lstm", "dense"],
    units: Units,
    slots: Units,
    slot_size: Units,
    read_heads: NumLayers,
    write_heads: NumLayers,
    max_shift: NumLayers,
) -> keras.Model:
    """Build the model.

    Args:
        data: the data set.
        controller: lstm, or dense: a feed-forward layer.
        units: of the controller.
        slots: of the memory.
        slot_size: numbers in a slot.
        read_heads: number of heads that read.
        write_heads: number of heads that write.
        max_shift: slots that a head moves in a step, at most, in each direction.
    """
    cell = NTMCell(
        controller, units, slots, slot_size, read_heads, write_heads, max_shift, name="ntm"
    )
    return cell_model(data, [cell])


def address(
    memory: Any, key: Any, strength: Any, gate: Any, shift: Any, sharpness: Any, before: Any
) -> Any:
    """The weights of heads on the slots: by content, then by location (equations 5 to 9).

    Args:
        memory: (batch, slot, number).
        key: (batch, head, number), compared with the slots by their cosine.
        strength: (batch, head, 1), of the comparison, positive.
        gate: (batch, head, 1), 0 to 1: the share of the content.
        shift: (batch, head, 2 * max_shift + 1): a distribution over rotations, from the lowest.
        sharpness: (batch, head, 1), at least 1.
        before: (batch, head, slot): the weights of the step before.

    Returns:
        (batch, head, slot), which sum to 1.
    """
    products = ops.einsum("bhm,bnm->bhn", key, memory)
    sizes = ops.sqrt(ops.sum(key**2, axis=-1, keepdims=True) + 1e-12) * ops.sqrt(
        ops.sum(memory**2, axis=-1)[:, None] + 1e-12
    )
    content = ops.softmax(strength * products / (sizes + 1e-6))
    gated = gate * content + (1 - gate) * before
    reach = shift.shape[-1] // 2
    rotated: Any = 0.0
    for number in range(shift.shape[-1]):
        turned = ops.roll(gated, number - reach, axis=-1)
        rotated = rotated + shift[..., number : number + 1] * turned
    sharp = (rotated + 1e-12) ** sharpness
    return sharp / ops.sum(sharp, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable(package="ostinato")
class NTMCell(keras.layers.Layer):
    """A step of a neural Turing machine.

    Its states are those of the controller (h and c of an LSTM, nothing of a dense one), the read
    vectors, the weights of all heads, and the memory; each is flat.
    """

    def __init__(
        self,
        controller: str,
        units: int,
        slots: int,
        slot_size: int,
        read_heads: int,
        write_heads: int,
        max_shift: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.settings = {
            "controller": controller,
            "units": units,
            "slots": slots,
            "slot_size": slot_size,
            "read_heads": read_heads,
            "write_heads": write_heads,
            "max_shift": max_shift,
        }
        self.units, self.slots, self.slot_size = units, slots, slot_size
        self.read_heads, self.heads = read_heads, read_heads + write_heads
        self.write_heads, self.max_shift = write_heads, max_shift
        self.controller: Any = (
            keras.layers.LSTMCell(units)
            if controller == "lstm"
            else keras.layers.Dense(units, activation="tanh")
        )
        self.own = [units, units] if controller == "lstm" else []
        memory = [read_heads * slot_size, self.heads * slots, slots * slot_size]
        self.state_size = [*self.own, *memory]
        self.output_size = units + read_heads * slot_size
        # Of each head: key, strength, gate, shift, sharpness.
        self.widths = [slot_size, 1, 1, 2 * max_shift + 1, 1]
        self.addressing = keras.layers.Dense(self.heads * sum(self.widths), name="addressing")
        self.writing = keras.layers.Dense(2 * write_heads * slot_size, name="writing")

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        self.controller.build((None, input_shape[-1] + self.read_heads * self.slot_size))
        self.addressing.build((None, self.units))
        self.writing.build((None, self.units))
        self.first_read = self.add_weight(
            shape=(self.read_heads * self.slot_size,),
            initializer=keras.initializers.RandomNormal(stddev=0.5),
            name="first_read",
        )
        self.first_weights = self.add_weight(
            shape=(self.heads, self.slots),
            initializer=keras.initializers.RandomNormal(stddev=0.5),
            name="first_weights",
        )

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        """The states before the first step."""
        weights = ops.reshape(ops.softmax(self.first_weights), (-1,))
        memory = ops.full((batch_size, self.slots * self.slot_size), FIRST_CONTENT)
        learned = [ops.tanh(self.first_read), weights]
        spread = [ops.broadcast_to(each, (batch_size, each.shape[0])) for each in learned]
        return [*(ops.zeros((batch_size, size)) for size in self.own), *spread, memory]

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        """One step: (batch, feature) and the states to the output and the states."""
        *own, reads, weights, memory = states
        weights = ops.reshape(weights, (-1, self.heads, self.slots))
        memory = ops.reshape(memory, (-1, self.slots, self.slot_size))
        seen = ops.concatenate([inputs, reads], axis=-1)
        if own:
            hidden, own = self.controller(seen, own, training=training)
        else:
            hidden = self.controller(seen)
        given = ops.clip(self.addressing(hidden), -LARGEST, LARGEST)
        given = ops.reshape(given, (-1, self.heads, sum(self.widths)))
        key, strength, gate, shift, sharpness = ops.split(
            given, np.cumsum(self.widths)[:-1].tolist(), axis=-1
        )
        weights = address(
            memory,
            ops.tanh(key),
            ops.softplus(strength),
            ops.sigmoid(gate),
            ops.softmax(shift),
            1 + ops.softplus(sharpness),
            weights,
        )
        reads = ops.einsum("bhn,bnm->bhm", weights[:, : self.read_heads], memory)
        reads = ops.reshape(reads, (-1, self.read_heads * self.slot_size))
        written = ops.clip(self.writing(hidden), -LARGEST, LARGEST)
        erase, add = ops.split(
            ops.reshape(written, (-1, self.write_heads, 2 * self.slot_size)), 2, axis=-1
        )
        erase, add = ops.sigmoid(erase), ops.tanh(add)
        for head in range(self.write_heads):
            weight = weights[:, self.read_heads + head, :, None]
            memory = memory * (1 - weight * erase[:, head, None]) + weight * add[:, head, None]
        after = [
            *own,
            reads,
            ops.reshape(weights, (-1, self.heads * self.slots)),
            ops.reshape(memory, (-1, self.slots * self.slot_size)),
        ]
        return ops.concatenate([hidden, reads], axis=-1), after

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), **self.settings}


def restore(folder: Path) -> "TuringMachine":
    """Read a model that `save` wrote."""
    return TuringMachine(
        store.read_model(folder / keras_model.FILE), store.read_arrays(folder / NORMS)
    )


class TuringMachine(MemoryModel):
    """A neural Turing machine, and the weights of its heads."""

    def traces(
        self, x: Float[np.ndarray, "step feature"]
    ) -> Mapping[str, Float[np.ndarray, "step slot"]]:
        """The weights of each head on the slots, while a sequence is read."""
        cell: Any = self.model.layers[1].cell
        states = cell.get_initial_state(batch_size=1)
        rows = []
        for step in x:
            _, states = cell(ops.convert_to_tensor(step[None]), states)
            rows.append(ops.convert_to_numpy(states[-2]).reshape(cell.heads, cell.slots))
        of_head = np.stack(rows, axis=1)
        names = [f"read weights {n + 1}" for n in range(cell.read_heads)]
        names += [f"write weights {n + 1}" for n in range(cell.write_heads)]
        return dict(zip(names, of_head, strict=True))
