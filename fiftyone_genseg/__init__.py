"""GenSeg-R1 in FiftyOne: operators that segment what an expression refers to.

Importing this package is cheap; models load when they run.
"""

__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "evaluate":
        from fiftyone_genseg.evaluation.run import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def register(plugin) -> None:
    """Register the operators and panels with FiftyOne's plugin context."""
    from fiftyone_genseg.operators.compare_checkpoints import CompareCheckpoints
    from fiftyone_genseg.operators.evaluate_referring_segmentation import EvaluateReferringSegmentation
    from fiftyone_genseg.operators.export_referring_examples import ExportReferringExamples
    from fiftyone_genseg.operators.load_predictions import LoadPredictions
    from fiftyone_genseg.operators.load_referring_dataset import LoadReferringDataset
    from fiftyone_genseg.operators.pull_checkpoint import PullCheckpoint
    from fiftyone_genseg.operators.push_checkpoint import PushCheckpoint
    from fiftyone_genseg.operators.referring_segment import ReferringSegment
    from fiftyone_genseg.operators.release_model import ReleaseModel
    from fiftyone_genseg.operators.train_on_view import TrainOnView
    from fiftyone_genseg.panels.failure_slices import FailureSlicesPanel
    from fiftyone_genseg.panels.referring_evaluation import ReferringEvaluationPanel

    for operator in (
        ReferringSegment,
        CompareCheckpoints,
        EvaluateReferringSegmentation,
        ExportReferringExamples,
        LoadReferringDataset,
        LoadPredictions,
        PullCheckpoint,
        PushCheckpoint,
        ReleaseModel,
        TrainOnView,
        ReferringEvaluationPanel,
        FailureSlicesPanel,
    ):
        plugin.register(operator)
