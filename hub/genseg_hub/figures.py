"""Names of the figures that are measured, stored and shown."""

from __future__ import annotations

PRECISION_AT = (0.5, 0.6, 0.7, 0.8, 0.9)
# Figure -> its printed name
NAMES = {
    "ciou": "cIoU",
    "miou": "mIoU",
    "target_miou": "target mIoU",
    "box_miou": "box mIoU",
    "n_acc": "N-acc",
    "t_acc": "T-acc",
    **{f"pr@{threshold}": f"Pr@{threshold}" for threshold in PRECISION_AT},
}
