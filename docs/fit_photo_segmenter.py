"""Fit nano's SAM 2 to three photographs, for the pictures of docs/photos.md only.

python docs/fit_photo_segmenter.py --out runs/photo_segmenter

This project ships no SAM 2 that knows photographs, and nano's SAM 2 makes no usable mask of a photograph. The result
knows three photographs by heart, so its masks say nothing about other photographs.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.segmenters.sam2 import load_sam2, save_sam2
from genseg_training.nano import segmenter
from PIL import Image
from sam2.utils.transforms import SAM2Transforms

ROOT = Path(__file__).resolve().parent.parent
SIZE = 256
PHOTOS = ("785", "7281", "309")  # the skier, the horses, the teddy bears
PROMPTS = 6  # of an image in a step
LEAST = 400  # pixels of a mask
LEARNING_RATE = 8e-4


def things() -> list[tuple[torch.Tensor, list[SimpleNamespace]]]:
    """Return each photograph as the model sees it, with its masks and boxes.

    The boxes are in pixels of the photograph.
    """
    from fiftyone import ViewField as F

    from fiftyone_genseg.datasets.photos import photos_dataset

    transforms, found = SAM2Transforms(SIZE, 0.0), {}
    dataset = photos_dataset("fit-photo-segmenter", ROOT / "examples" / "photos")
    for sample in dataset.match(F("image_id").is_in(PHOTOS)):
        image = np.asarray(Image.open(sample.filepath).convert("RGB"))
        height, width = image.shape[:2]
        _, masks = found.setdefault(sample.filepath, (transforms(image), {}))
        for label in sample["ground_truth"].detections:
            x, y, w, h = label.bounding_box
            box = (x * width, y * height, (x + w) * width, (y + h) * height)
            mask = np.zeros((height, width), bool)
            part = label.get_mask()
            top, left = round(box[1]), round(box[0])
            mask[top : top + part.shape[0], left : left + part.shape[1]] = part
            if mask.sum() >= LEAST:
                masks[tuple(map(round, box))] = SimpleNamespace(box=box, mask=mask)
    dataset.delete()
    return [(image, list(masks.values())) for image, masks in found.values() if masks]


def batch(rng: random.Random, photos: list[tuple[torch.Tensor, list[SimpleNamespace]]]):
    """Draw images, prompts and targets for the segmenter.

    `segmenter.forward` and `segmenter.mask_loss` take them.
    """
    images, prompts, owner, targets = [], [], [], []
    for index, (image, shapes) in enumerate(photos):
        images.append(image)
        for shape in rng.sample(shapes, min(PROMPTS, len(shapes))):
            height, width = shape.mask.shape
            scale = np.array([SIZE / width, SIZE / height], np.float32)
            prompts.append(np.array(segmenter.noisy_prompt(rng, shape, 0.12), np.float32) * scale)
            small = Image.fromarray(shape.mask.astype(np.float32)).resize((SIZE // 2, SIZE // 2), Image.Resampling.BOX)
            targets.append(np.asarray(small))
            owner.append(index)
    stacked = torch.from_numpy(np.stack(prompts)), torch.tensor(owner), torch.from_numpy(np.stack(targets))
    return torch.stack(images), *stacked


def main() -> None:
    """Fit, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/photo_segmenter"), help="folder of the segmenter")
    parser.add_argument("--minutes", type=float, default=12.0, help="how long to fit")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    photos, rng = things(), random.Random(0)
    model = load_sam2(EMBEDDED["nano"] / "segmenter").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    fast = torch.backends.cpu.get_cpu_capability() != "AVX2"  # which can only imitate bfloat16
    started, step, ious = time.monotonic(), 0, []
    while (spent := time.monotonic() - started) < 60 * args.minutes:
        left = 1 - spent / (60 * args.minutes)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, step / 20) * min(1.0, 2 * left)
        images, prompts, owner, target = batch(rng, photos)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
            logits, predicted, objects = segmenter.forward(model, images, prompts, owner)
        loss, figures = segmenter.mask_loss(logits, predicted, objects, target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        ious.append(figures["iou"])
        if step % 50 == 0:
            print(f"step {step}: IoU {np.mean(ious[-50:]):.2f} on the photographs it is fitted to", flush=True)
        if step % 200 == 0:
            save_sam2(model, args.out, segmenter.BASE, segmenter.OVERRIDES)
    save_sam2(model, args.out, segmenter.BASE, segmenter.OVERRIDES)


if __name__ == "__main__":
    sys.exit(main())
