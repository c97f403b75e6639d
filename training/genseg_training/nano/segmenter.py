"""Train the nano SAM 2 on rendered scenes: from a noisy box and points to a mask."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from genseg_hub.segmenters.sam2 import build_sam2, save_sam2
from genseg_hub.whole import written_folder
from PIL import Image
from sam2.modeling.sam2_base import SAM2Base
from sam2.utils.transforms import SAM2Transforms
from torch.nn.attention import SDPBackend, sdpa_kernel

from genseg_training.nano import loop
from genseg_training.nano.answers import interior_points
from genseg_training.nano.scenes import Shape, scene

BASE = "sam2.1/sam2.1_hiera_t"
_WIDTH, _SIZE = 64, 256
OVERRIDES = {
    "image_size": _SIZE,
    "image_encoder.trunk.embed_dim": 32,
    "image_encoder.trunk.stages": [1, 2, 3, 1],
    # Blocks with global attention must not be the first of a stage, which pools its queries.
    "image_encoder.trunk.global_att_blocks": [4, 5],
    "image_encoder.trunk.window_pos_embed_bkg_spatial_size": [8, 8],
    "image_encoder.neck.d_model": _WIDTH,
    "image_encoder.neck.position_encoding.num_pos_feats": _WIDTH,
    "image_encoder.neck.backbone_channel_list": [256, 128, 64, 32],
    "memory_attention.d_model": _WIDTH,
    "memory_attention.num_layers": 1,
    "memory_attention.layer.d_model": _WIDTH,
    "memory_attention.layer.dim_feedforward": 128,
    "memory_attention.layer.self_attention.embedding_dim": _WIDTH,
    "memory_attention.layer.self_attention.feat_sizes": [_SIZE // 16, _SIZE // 16],
    "memory_attention.layer.cross_attention.embedding_dim": _WIDTH,
    "memory_attention.layer.cross_attention.feat_sizes": [_SIZE // 16, _SIZE // 16],
    "memory_attention.layer.cross_attention.kv_in_dim": 16,
    "memory_encoder.in_dim": _WIDTH,
    "memory_encoder.out_dim": 16,
    "memory_encoder.position_encoding.num_pos_feats": 16,
    "memory_encoder.mask_downsampler.embed_dim": _WIDTH,
    "memory_encoder.fuser.layer.dim": _WIDTH,
    "memory_encoder.fuser.num_layers": 1,
}
# Parts of SAM 2 that follow an object through a video; images never reach them.
_VIDEO = ("memory", "mask_downsample", "maskmem", "obj_ptr", "no_obj", "no_mem_pos")
_OBJECTS_PER_IMAGE = 4
_LABELS = torch.tensor([2, 3, 1, 1], dtype=torch.int)  # box corners, then two positive points


def noisy_prompt(rng: random.Random, shape: Shape, jitter: float) -> list[list[float]]:
    """Draw a noisy prompt of a shape: float[4, 2] in pixels.

    First come two box corners, then two points inside the mask. Half of the prompts have random points, the other half
    the points of `answers.interior_points`.

    Args:
        rng: the only source of randomness.
        shape: shape to prompt for.
        jitter: a side of the box moves by up to this share of its length.
    """
    x1, y1, x2, y2 = shape.box

    def moved(value: float, length: float) -> float:
        return value + rng.uniform(-jitter, jitter) * length

    w, h = x2 - x1, y2 - y1
    box = [[moved(x1, w), moved(y1, h)], [moved(x2, w), moved(y2, h)]]
    if rng.random() < 0.5:
        return box + [list(point) for point in interior_points(shape.mask)]
    ys, xs = np.nonzero(shape.mask)
    chosen = [rng.randrange(len(xs)) for _ in range(2)]
    return box + [[float(xs[i]) + 0.5, float(ys[i]) + 0.5] for i in chosen]


def forward(model: SAM2Base, images: torch.Tensor, prompts: torch.Tensor, owner: torch.Tensor):
    """Decode all prompts of a batch at once, with gradients.

    Args:
        model: SAM 2.
        images: float32[B, 3, S, S], normalised.
        prompts: float32[N, 4, 2] in pixels of S x S, box corners, then points.
        owner: int64[N], the image of each prompt.

    Returns:
        Mask logits [N, 4, S/4, S/4] (the single mask first, then the three of multimask), predicted IoUs [N, 4] and
        object score logits [N, 1].
    """
    _, features, _, sizes = model._prepare_backbone_features(model.forward_image(images))
    features[-1] = features[-1] + model.no_mem_embed
    maps = [f.permute(1, 2, 0).reshape(len(images), -1, *size) for f, size in zip(features, sizes, strict=True)]
    sparse, dense = model.sam_prompt_encoder(points=(prompts, _LABELS.expand(len(prompts), -1)), boxes=None, masks=None)
    masks, ious, _, objects = model.sam_mask_decoder.predict_masks(
        image_embeddings=maps[-1][owner],
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=[level[owner] for level in maps[:-1]],
    )
    return masks, ious, objects


def mask_loss(
    logits: torch.Tensor, ious: torch.Tensor, objects: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the loss, and the mean IoU of the single mask.

    The loss adds class-balanced cross-entropy and dice on the single mask and on the best of the three. To these come
    L1 on the predicted IoUs, and cross-entropy on "there is an object". The cross-entropy is balanced, because focal
    loss collapses to empty masks at this size.

    Args:
        logits: logits of the masks, as `forward` returns them.
        ious: predicted, as `forward` returns them.
        objects: object score logits, as `forward` returns them.
        target: float32[N, S/2, S/2], the share of each pixel that the object covers.
    """
    logits = F.interpolate(logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
    target = target[:, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    inside, outside = target.sum((2, 3), keepdim=True).clamp(min=1), (1 - target).sum((2, 3), keepdim=True).clamp(min=1)
    weight = (target / inside + (1 - target) / outside) / 2
    balanced = (entropy * weight).sum((2, 3))
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * target).sum((2, 3)) + 1) / (probability.sum((2, 3)) + target.sum((2, 3)) + 1)
    losses = balanced + dice
    with torch.no_grad():
        hit, truth = logits > 0, target > 0.5
        true_ious = (hit & truth).sum((2, 3)) / (hit | truth).sum((2, 3)).clamp(min=1)
    total = losses[:, 0].mean() + losses[:, 1:].min(1).values.mean() + (ious.float() - true_ious).abs().mean()
    total = total + 0.1 * F.binary_cross_entropy_with_logits(objects.float(), torch.ones_like(objects).float())
    return total, {"iou": true_ious[:, 0].mean().item()}


def train(config: loop.LoopConfig) -> None:
    """Train the nano SAM 2 and save it.

    Args:
        config: settings of the stage.
    """
    torch.manual_seed(0)
    model = build_sam2(BASE, OVERRIDES)
    transforms = SAM2Transforms(_SIZE, 0.0)

    def make_batch(seed: str, progress: float, jitter: float = 0.12):
        rng = random.Random(f"segmenter-{seed}")
        images, prompts, targets, owner = [], [], [], []
        for index in range(config.batch_images):
            drawn = scene(rng, allow_held_out=False)
            images.append(transforms(drawn.image))
            scale = np.array([_SIZE / drawn.size[0], _SIZE / drawn.size[1]], dtype=np.float32)
            for shape in rng.sample(drawn.shapes, min(_OBJECTS_PER_IMAGE, len(drawn.shapes))):
                prompts.append(np.array(noisy_prompt(rng, shape, jitter), dtype=np.float32) * scale)
                mask = Image.fromarray(shape.mask.astype(np.float32)).resize(
                    (_SIZE // 2, _SIZE // 2), Image.Resampling.BOX
                )
                targets.append(np.asarray(mask))
                owner.append(index)
        return (
            torch.stack(images), torch.from_numpy(np.stack(prompts)), torch.tensor(owner),
            torch.from_numpy(np.stack(targets)),
        )  # fmt: skip

    def loss_of(batch):
        images, prompts, owner, target = batch
        with torch.autocast("cpu", dtype=torch.bfloat16), sdpa_kernel(SDPBackend.MATH):  # flash is slower on a CPU
            logits, ious, objects = forward(model, images, prompts, owner)
        return mask_loss(logits, ious, objects, target)

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        ious = [loss_of(make_batch(f"held-out-{i}", 1.0, jitter=0.0))[1]["iou"] for i in range(12)]
        noisy = [loss_of(make_batch(f"held-out-{i}", 1.0))[1]["iou"] for i in range(6)]
        return {"iou": float(np.mean(ious)), "iou_noisy_box": float(np.mean(noisy))}

    def save(folder: Path) -> None:
        with written_folder(folder / "segmenter") as new:
            save_sam2(model, new, BASE, OVERRIDES)

    def scale(name: str) -> float:
        return 0.0 if name.startswith(_VIDEO) else 1.0

    optimizers: Iterable[torch.optim.Optimizer] = loop.muon_and_adamw(model, config, scale)
    loop.train(model, optimizers, config, make_batch, loss_of, evaluate, save)
