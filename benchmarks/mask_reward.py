"""Time the mask reward against one that embeds the image for every completion.

python benchmarks/mask_reward.py [--out FILE]
python benchmarks/mask_reward.py --photographs 8    # only the option `reduced_mask_reward`

The other reward function scores completions one after the other, as Seg-R1's. For each completion it gives the image to
SAM 2, asks for one mask per box, and ORs the masks. It holds one model and parses with the same dialect, so that only
the use of SAM 2 differs. Images and true boxes come from RefScenes val, with 8 prompts of 8 completions each. A
completion is the true answer with jittered boxes, as a policy in training writes it. nano's embedding is untypically
cheap; SAM 2.1 tiny shows an embedding of full size, with random weights and two prompts.

`--photographs` enlarges the scenes and their masks to 12 megapixels. It compares the reward of whole images with
`reduced_mask_reward`, in CPU seconds and in the rewards.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import numpy as np
import torch
from genseg_hub import GenSegR1
from genseg_hub.answers import read
from genseg_hub.dialects import genseg
from genseg_hub.schema import InstancePrompt, ReferringExample, decode_mask, encode_mask
from genseg_hub.segmenters.sam2 import Sam2Segmenter, build_sam2
from genseg_training.mask_reward import MaskReward
from genseg_training.nano.answers import interior_points
from genseg_training.nano.refscenes import refscenes
from PIL import Image
from sam2.sam2_image_predictor import SAM2ImagePredictor
from side_by_side import compare, faster, parser, report

COMPLETIONS = 8


def answer(example: ReferringExample, dice: random.Random) -> str:
    """Return the true answer with boxes that are off by up to a tenth of their size."""
    height, width = example.image.shape[:2]
    instances = []
    for rle in example.masks:
        mask = decode_mask(rle)
        ys, xs = np.nonzero(mask)
        x1, y1, x2, y2 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        by = [dice.uniform(-0.1, 0.1) * side for side in (x2 - x1, y2 - y1) * 2]
        box = (max(0, x1 + by[0]), max(0, y1 + by[1]), min(width, x2 + by[2]), min(height, y2 + by[3]))
        instances.append(InstancePrompt(tuple(map(float, box)), interior_points(mask)))
    return genseg.render("", instances, (width, height))


def batch(prompts: int) -> dict[str, list]:
    """Return the columns that TRL hands to a reward.

    A prompt has one image and a group of completions.
    """
    dice, images, columns = random.Random(0), set(), {"completions": [], "image": [], "image_id": [], "masks": []}
    for example in refscenes("val"):
        if not example.masks or example.image_id in images:
            continue
        images.add(example.image_id)
        columns["completions"] += [answer(example, dice) for _ in range(COMPLETIONS)]
        columns["image"] += [Image.fromarray(example.image)] * COMPLETIONS
        columns["image_id"] += [example.image_id] * COMPLETIONS
        columns["masks"] += [list(example.masks)] * COMPLETIONS
        if len(images) == prompts:
            return columns
    raise AssertionError("RefScenes val has too few images")


class Watched(Sam2Segmenter):
    """A segmenter that counts its embeddings and decodings, and their seconds."""

    def __init__(self, model):
        super().__init__(model)
        self.embedding = self.decoding = 0.0
        self.embedded = self.decoded = 0

    def _embed(self, *args):
        started = time.perf_counter()
        embedding = super()._embed(*args)
        self.embedding += time.perf_counter() - started
        self.embedded += 1
        return embedding

    def _decode(self, *prompts):
        started = time.perf_counter()
        decoded = super()._decode(*prompts)
        self.decoding += time.perf_counter() - started
        self.decoded += len(decoded[0])
        return decoded

    def __str__(self) -> str:
        """Return the mean times of an image's embedding and decoding."""
        embedding, decoding, prompts = (x / self.embedded for x in (self.embedding, self.decoding, self.decoded))
        return (
            f"of ours, embedding {1000 * embedding:.0f} ms an image, its {prompts:.0f} boxes {1000 * decoding:.0f} ms"
        )


class EmbeddingPerCompletion:
    """The mask reward, computed for each completion by itself."""

    def __init__(self, model):
        self.predictor = SAM2ImagePredictor(model)
        size = model.image_size
        self.predictor._bb_feat_sizes = [
            (size // stride, size // stride) for stride in (4, 8, 16)
        ]  # SAM2ImagePredictor knows 1024 only

    def __call__(self, completions: Sequence[str], image, masks, **_) -> list[float]:
        """Return one reward per completion."""
        return [self._score(*row) for row in zip(completions, image, masks, strict=True)]

    def _score(self, completion: str, image: Image.Image, truth) -> float:
        pixels = np.array(image.convert("RGB"))
        union = np.zeros(pixels.shape[:2], bool)
        self.predictor.set_image(pixels)
        for instance in read(genseg, completion, image.size).instances:
            found, _, _ = self.predictor.predict(
                point_coords=np.array(instance.points, np.float32),
                point_labels=np.ones(len(instance.points), int),
                box=np.array(instance.box, np.float32),
                multimask_output=False,
            )
            union |= found[0] > 0
        target = np.any([decode_mask(rle) for rle in truth], axis=0)
        return float((union & target).sum() / (union | target).sum())


def same(ours: list[float | None], theirs: list[float]) -> None:
    """Raise AssertionError unless the rewards agree, up to about one pixel.

    A pixel may differ, because batches add floats in another order.
    """
    if None in ours or not np.allclose(ours, theirs, atol=2e-3):
        raise AssertionError(f"our rewards are {ours}, theirs are {theirs}")


def photographs(prompts: int) -> None:
    """Print costs of whole and reduced 12-megapixel scenes, and how rewards differ."""
    columns = batch(prompts)
    size = 4032, 3024

    def enlarged(rle: dict) -> dict:
        mask = Image.fromarray(decode_mask(rle)).resize(size, Image.Resampling.NEAREST)
        return encode_mask(np.array(mask))

    for start in range(0, len(columns["image"]), COMPLETIONS):
        rows = slice(start, start + COMPLETIONS)
        columns["image"][rows] = [columns["image"][start].resize(size)] * COMPLETIONS
        columns["masks"][rows] = [[enlarged(rle) for rle in columns["masks"][start]]] * COMPLETIONS
    segmenter = GenSegR1.from_pretrained("nano").segmenter
    rewards = {}
    for name, reduced in (("whole", False), ("reduced", True)):
        started = time.process_time()
        rewards[name] = np.array(MaskReward(segmenter, reduced)(**columns))
        print(f"{name}: {(time.process_time() - started) / prompts:.2f} s of CPU for an image of {COMPLETIONS} answers")
    apart = np.abs(rewards["whole"] - rewards["reduced"])
    print(f"rewards {rewards['whole'].mean():.3f} and {rewards['reduced'].mean():.3f} in the mean; "
          f"they differ by {apart.mean():.4f} in the mean and by {apart.max():.4f} at most")  # fmt: skip


def main() -> None:
    """Time both rewards with two segmenters and report the rows."""
    known = parser(__doc__)
    known.add_argument("--photographs", type=int, metavar="IMAGES")
    options = known.parse_args()
    if options.photographs:
        photographs(options.photographs)
        return
    torch.manual_seed(0)
    nano = GenSegR1.from_pretrained("nano").segmenter._predictor.model
    rows = []
    for name, model, prompts, repetitions, weights in (
        ("nano's segmenter", nano, 2 if options.quick else 8, 1 if options.quick else 5, ""),
        (
            "SAM 2.1 tiny",
            build_sam2("sam2.1/sam2.1_hiera_t"),
            1 if options.quick else 2,
            1 if options.quick else 3,
            "; random weights",
        ),
    ):
        segmenter = Watched(model)
        columns, reward, other = batch(prompts), MaskReward(segmenter), EmbeddingPerCompletion(model)
        ours, theirs = compare(
            lambda reward=reward, columns=columns: reward(**columns),
            lambda other=other, columns=columns: other(**columns),
            same,
            repetitions,
        )
        work = f"mask reward, {prompts} x {COMPLETIONS} completions, {name}, {model.image_size} px"
        note = f"{segmenter}{weights}; repetitions: {repetitions}"
        rows.append(faster("5", work, "an embedding per completion", 6, ours, theirs, note))
    report(rows, options.out)


if __name__ == "__main__":
    main()
