"""GenSeg-R1 in FiftyOne: operators that segment what words describe.

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
    from fiftyone_genseg.operators.ask import Ask
    from fiftyone_genseg.operators.ask_settings import AskSettings
    from fiftyone_genseg.operators.compare_checkpoints import CompareCheckpoints
    from fiftyone_genseg.operators.evaluate_referring_segmentation import EvaluateReferringSegmentation
    from fiftyone_genseg.operators.export_referring_examples import ExportReferringExamples
    from fiftyone_genseg.operators.load_predictions import LoadPredictions
    from fiftyone_genseg.operators.load_referring_dataset import LoadReferringDataset
    from fiftyone_genseg.operators.pull_checkpoint import PullCheckpoint
    from fiftyone_genseg.operators.push_checkpoint import PushCheckpoint
    from fiftyone_genseg.operators.referring_segment import ReferringSegment
    from fiftyone_genseg.operators.release_model import ReleaseModel
    from fiftyone_genseg.operators.stop_run import StopRun
    from fiftyone_genseg.operators.tag_failure_slice import TagFailureSlice
    from fiftyone_genseg.operators.train_on_view import TrainOnView
    from fiftyone_genseg.panels.ask import AskPanel
    from fiftyone_genseg.panels.failure_slices import FailureSlicesPanel
    from fiftyone_genseg.panels.past_runs import PastRunsPanel
    from fiftyone_genseg.panels.referring_evaluation import ReferringEvaluationPanel
    from fiftyone_genseg.panels.side_by_side import SideBySidePanel

    for operator in (
        ReferringSegment,
        Ask,
        AskSettings,
        CompareCheckpoints,
        EvaluateReferringSegmentation,
        ExportReferringExamples,
        LoadReferringDataset,
        LoadPredictions,
        PullCheckpoint,
        PushCheckpoint,
        ReleaseModel,
        StopRun,
        TagFailureSlice,
        TrainOnView,
        AskPanel,
        ReferringEvaluationPanel,
        FailureSlicesPanel,
        PastRunsPanel,
        SideBySidePanel,
    ):
        plugin.register(operator)
