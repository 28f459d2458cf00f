"""Training speed of `attention` at Multi30k's size, in sentences/s, against PyTorch.

    python -m bench.translation recipes/multi30k/data/multi30k-en-de --torch-python TORCH/bin/python

The folder is a prepared data set. Ours is `fit_seq2seq` on batches of the data set, with all
overheads; the opponent is the same model in PyTorch (`bench/translation_peer.py`) on the same
batches, with its default allocator and with glibc configured to keep freed memory. All use the same
number of threads and take turns, round by round; the first round is a warm-up. Prints medians over
the rounds, and the median ratio of ours to each opponent in the same round.
`python -m bench run translation` installs PyTorch.
"""

import argparse
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.training import KEEP_MEMORY, report, start, torch_side
from ostinato import params, store
from ostinato.task import Part, TrainingContext
from ostinato.training import runtime, teacher_forcing, trainer
from ostinato.training.machine import Machine
from ostinato.translation import dataset
from ostinato.translation.models import attention

BENCHMARK = {
    "measures": "training `attention` at Multi30k's size, in sentences/s, against PyTorch",
    "minutes": 20,
    "needs": "the prepared data set, recipes/multi30k/data/multi30k-en-de",
    "peers": {"--torch-python": "torch"},
}


class FirstBatches:
    """The first batches of an epoch, the same in every epoch."""

    def __init__(self, data: Any, batch: int, count: int) -> None:
        self.items = list(data.batches("train", batch_size=batch, seed=1, epoch=1).take(count))

    def size(self, split: str) -> int:
        """The number of pairs."""
        return sum(len(y) for _, y, _ in self.items)

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> Any:
        """The batches; one for validation."""
        import tensorflow as tf

        items = self.items if split == "train" else self.items[:1]
        spec = tf.nest.map_structure(
            lambda x: tf.TensorSpec((None,) * x.shape.rank, x.dtype), items[0]
        )
        options = tf.data.Options()
        options.autotune.enabled = False  # as in `TranslationDataset.batches`
        batches = tf.data.Dataset.from_generator(lambda: iter(items), output_signature=spec)
        return batches.with_options(options)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of a prepared data set")
    parser.add_argument("--torch-python", required=True, help="interpreter that has torch")
    parser.add_argument("--batches", type=int, default=40, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    run = params.load("recipes/multi30k/params.yaml")["runs"]["multi30k-en-de-attention"]
    threads = len(os.sched_getaffinity(0))
    speeds: dict[str, list[float]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory() as folder,
        runtime.runtime(1, Machine(intra_op=1, inter_op=threads), precision="float32"),
    ):
        data = dataset.load(args.data)
        few = FirstBatches(data, run["fit"]["batch_size"], args.batches)
        file = Path(folder, "batches.npz")
        arrays: dict[str, Any] = {}
        for i, (x, y, weight) in enumerate(few.items):
            arrays |= {f"{name}{i}": x[name].numpy() for name in x}
            arrays |= {f"y{i}": y.numpy(), f"weight{i}": weight.numpy()}
        store.write_arrays(file, arrays)
        shape = [
            *data.vocab_sizes,
            data.shared_vocabulary,
            run["build"]["units"],
            run["build"]["dropout"],
        ]
        print(f"{few.size('train')} pairs in {len(few.items)} batches, {shape}")
        command = [args.torch_python, "bench/translation_peer.py", str(file), str(threads)]
        command += [str(value) for value in shape]
        sides: dict[str, Callable[[], float]] = {
            f"PyTorch, {name}": torch_side(start(command, variables), few.size("train"))
            for name, variables in (("default allocator", {}), ("keeps its memory", KEEP_MEMORY))
        }

        def on_epoch(record: trainer.Record) -> None:
            speeds["ours"].append(float(record["sequences_per_second"]))
            for name, side in sides.items():
                speeds[name].append(side())

        fit = {**run["fit"], "epochs": args.rounds + 1, "patience": args.rounds + 1}
        build = {**run["build"], "num_layers": 1, "attention_score": "general", "word_dropout": 0.0}
        model = attention.build(data, **build)
        teacher_forcing.fit_seq2seq(
            model, few, TrainingContext(Path(folder, "checkpoints"), 1, on_epoch), **fit
        )
    report({name: found[1:] for name, found in speeds.items()})


if __name__ == "__main__":
    main()
