"""Checkpoints: the meaning of a name, its files, and the checks before use."""

from genseg_hub.checkpoints.names import check_name, segmenter_folder, split_agent, split_revision, split_segmenter
from genseg_hub.checkpoints.planning import DownloadPlan, plan, readable_size
from genseg_hub.checkpoints.pulling import Checkpoint, check_available, is_on_disk, is_sam3, pull, verify
from genseg_hub.checkpoints.safety import check_folder, check_segmenter
from genseg_hub.checkpoints.served import of_served_model
from genseg_hub.checkpoints.settings import SETTINGS_FILE

__all__ = [
    "SETTINGS_FILE",
    "Checkpoint",
    "DownloadPlan",
    "check_available",
    "check_folder",
    "check_name",
    "check_segmenter",
    "is_on_disk",
    "is_sam3",
    "of_served_model",
    "plan",
    "pull",
    "readable_size",
    "segmenter_folder",
    "split_agent",
    "split_revision",
    "split_segmenter",
    "verify",
]
