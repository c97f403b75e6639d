"""Stage 1 of nano: dense pretraining of the vision tower.

Linear heads on the merged visual tokens predict for each cell of the picture whether an object is there. They also
predict its kind, colour and size, and the box of the whole object. The heads are thrown away afterwards. A language
model learns to read positions far sooner from a tower that already knows them.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from genseg_hub.whole import written_folder
from PIL import Image

from genseg_training.nano import architecture, loop
from genseg_training.nano.scenes import CANVASES, COLORS, KINDS, SIZES, Scene, scene

_CLASSES = (len(KINDS), len(COLORS), len(SIZES))


def cell_targets(drawn: Scene, rows: int, columns: int) -> np.ndarray:
    """Return the targets of cells: float32[rows * columns, 8].

    The columns are object (0 or 1), kind, colour, size, and box (xyxy in [0, 1]). A cell belongs to the object that
    covers most of it, if that object covers more than 3 %.

    Args:
        drawn: the scene.
        rows: rows of cells.
        columns: columns of cells.
    """
    target = np.zeros((rows, columns, 8), dtype=np.float32)
    most = np.full((rows, columns), 0.03, dtype=np.float32)
    width, height = drawn.size
    for shape in drawn.shapes:
        covered = np.asarray(
            Image.fromarray(shape.mask.astype(np.float32)).resize((columns, rows), Image.Resampling.BOX)
        )
        x1, y1, x2, y2 = shape.box
        here = covered > most
        target[here] = (
            1, KINDS.index(shape.kind), list(COLORS).index(shape.color), SIZES.index(shape.size),
            x1 / width, y1 / height, x2 / width, y2 / height,
        )  # fmt: skip
        most = np.maximum(most, covered)
    return target.reshape(-1, 8)


class DenseTower(torch.nn.Module):
    """The vision tower with its temporary heads.

    Args:
        tower: tower of the reasoner.
        width: width of a merged visual token.
    """

    def __init__(self, tower: torch.nn.Module, width: int):
        super().__init__()
        self.tower = tower
        self.head = torch.nn.Linear(width, 1 + sum(_CLASSES) + 4)

    def forward(self, pixels: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """Return the heads' outputs for each cell, float32[cells, 19]."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            tokens = self.tower(pixels, grid_thw=grid).pooler_output
        return self.head((torch.cat(tokens) if isinstance(tokens, list | tuple) else tokens).float())


def dense_loss(output: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the loss and the accuracies.

    The loss adds objectness, kind, colour and size (cross-entropy) and 10 x box (smooth L1).

    Args:
        output: output of `DenseTower`.
        target: target of `cell_targets`.
    """
    there = target[:, 0] > 0
    loss = F.binary_cross_entropy_with_logits(output[:, 0], target[:, 0])
    output, target = output[there], target[there]
    parts = output[:, 1:].split([*_CLASSES, 4], 1)
    figures = {}
    for i, name in enumerate(("kind", "color", "size")):
        label = target[:, i + 1].long()
        loss = loss + F.cross_entropy(parts[i], label)
        figures[name] = (parts[i].argmax(1) == label).float().mean().item()
    box = target[:, 4:]
    figures["box_error_px_of_256"] = (parts[3] - box).abs().mean().item() * 256
    return loss + 10 * F.smooth_l1_loss(parts[3], box, beta=0.02), figures


def pretrain(config: loop.LoopConfig) -> None:
    """Train the vision tower of a new nano reasoner and save the whole checkpoint.

    Args:
        config: settings of the stage.
    """
    processor = architecture.build_processor()
    model = architecture.build_reasoner(processor.tokenizer)
    model.set_attn_implementation("eager")  # faster than SDPA at this size on a CPU
    module = DenseTower(model.model.visual, model.lm_head.in_features)

    def make_batch(seed: str, progress: float):
        rng = random.Random(f"vision-{seed}")
        canvas = rng.choice(CANVASES)
        drawn = [scene(rng, canvas=canvas, allow_held_out=False) for _ in range(config.batch_images)]
        inputs = processor.image_processor(images=[s.image for s in drawn], return_tensors="pt")
        _, rows, columns = (
            inputs["image_grid_thw"][0] // torch.tensor([1, architecture.MERGE, architecture.MERGE])
        ).tolist()
        targets = np.concatenate([cell_targets(s, rows, columns) for s in drawn])
        return inputs["pixel_values"], inputs["image_grid_thw"], torch.from_numpy(targets)

    def loss_of(batch):
        pixels, grid, target = batch
        return dense_loss(module(pixels, grid), target)

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        results = [loss_of(make_batch(f"held-out-{i}", 1.0))[1] for i in range(8)]
        return {name: sum(r[name] for r in results) / len(results) for name in results[0]}

    def save(folder: Path) -> None:
        with written_folder(folder / "reasoner") as new:
            model.save_pretrained(new)
            processor.save_pretrained(new)

    loop.train(module, loop.muon_and_adamw(module, config), config, make_batch, loss_of, evaluate, save)
