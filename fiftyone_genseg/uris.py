"""URIs of the plugin's operators and panels, as FiftyOne knows them."""

PLUGIN = "@fiftyone-genseg/genseg"

SEGMENT = f"{PLUGIN}/referring_segment"
COMPARE = f"{PLUGIN}/compare_checkpoints"
EVALUATE = f"{PLUGIN}/evaluate_referring_segmentation"
EXPORT = f"{PLUGIN}/export_referring_examples"
TRAIN = f"{PLUGIN}/train_on_view"
EVALUATION_PANEL = f"{PLUGIN}/referring_evaluation"
SLICES_PANEL = f"{PLUGIN}/failure_slices"
