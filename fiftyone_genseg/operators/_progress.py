"""Operators that are generators: how they run, end, stop and show progress."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any, TypeVar

import fiftyone.operators as foo
from genseg_hub import checkpoints
from genseg_hub.options import HubOptions, pick
from genseg_hub.whole import disk_full_in_words
from huggingface_hub import constants

from fiftyone_genseg import history, icons
from fiftyone_genseg.messages import sentence
from fiftyone_genseg.operators import _results

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Done:
    """The end of a run, as the user is told.

    Attributes:
        text: a sentence.
        variant: variant of the App's notification.
        then: the next order to the App, such as `ctx.ops.reload_dataset`; not called if the run is delegated.
        facts: the run's results: name -> words.
        steps: the next steps.
    """

    text: str
    variant: str = "success"
    then: tuple[Callable[[], Any], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[_results.Step, ...] = ()


def config(name: str, label: str, description: str, icon: str, **options: Any) -> foo.OperatorConfig:
    """Return the configuration of an operator that is a generator.

    The operator runs in the App or in the background. Its form is drawn anew with each change of a value.
    """
    return foo.OperatorConfig(
        name=name,
        label=label,
        description=description,
        icon=icon,
        **icons.of(name),
        dynamic=True,
        execute_as_generator=True,
        allow_immediate_execution=True,
        allow_delegated_execution=True,
        **options,
    )


def run(ctx, work: Generator[Any, None, Done], stopped: str) -> Iterator:
    """Pass on the messages of some work and say how it ended.

    `history` keeps the run, and the user can ask there to stop it. In the App a message shows the result, because a
    generator yields messages only. A message also shows an error, after the words `stopped`. In a delegated run the
    error is raised, because FiftyOne records it. Callers from Python can ask for the error, too.
    """
    operator = ctx.operator_uri.rpartition("/")[2].replace("_", " ").capitalize()
    kept = history.Run(operator, ctx.dataset.name if ctx.dataset is not None else "")
    ctx.kept = kept
    state = history.DONE
    try:
        yield from tell(ctx, 0.0, "starting")
        with disk_full_in_words():
            done = yield from work
    except history.Stopped:
        state, done = history.STOPPED, _stopped(ctx, kept.record.text)
    except GeneratorExit:
        kept.end(history.STOPPED, f"The App was closed at: {kept.record.text}. The results so far stay.")
        raise
    except Exception as error:
        kept.end(history.FAILED, str(error))
        if ctx.delegated or ctx.params.get("raise_errors"):
            raise
        done = Done(f"{stopped}: {error}", "error")
        yield ctx.ops.notify(done.text, variant="error")
        yield _results.show(ctx, operator, Done(sentence(error), "error"))
        return
    kept.end(state, done.text)
    if ctx.delegated:
        ctx.set_progress(1.0, label=done.text)
        return
    yield ctx.ops.notify(done.text, variant=done.variant)
    yield _results.show(ctx, operator, done)
    for message in done.then:
        yield message()


def _stopped(ctx, progress: str) -> Done:
    text = f"Stopped at: {progress}. The results so far stay." if progress else "Stopped before the first step."
    return Done(text, "warning", (ctx.ops.reload_dataset,))


def tell(ctx, share: float, label: str) -> Iterator:
    """Show progress in the App or in the list of delegated runs.

    In the App the progress is a message, which the caller yields.

    Raises:
        history.Stopped: the user asked to stop the run.
    """
    kept = ctx.kept
    kept.progress(label)
    if ctx.delegated:
        ctx.set_progress(share, label=label)
    else:
        yield _results.show_progress(ctx, kept.record, share, label)


def follow(
    ctx, work: Generator[float, None, _Result], label: str, start: float = 0.0, end: float = 1.0
) -> Generator[Any, None, _Result]:
    """Show the progress of some work, and return its result.

    Args:
        ctx: FiftyOne's context of the running operator.
        work: yields the share of itself that is done, in [0, 1].
        label: the work that is done.
        start: share of the whole run at which the work begins.
        end: share at which it ends.
    """
    while True:
        try:
            share = next(work)
        except StopIteration as stop:
            return stop.value
        yield from tell(ctx, start + (end - start) * share, label)


def pulling(
    ctx,
    name: str,
    with_reasoner: bool = True,
    options: Mapping[str, Any] = MappingProxyType({}),
    newest: bool = False,
) -> Generator[Any, None, checkpoints.Checkpoint]:
    """Download the missing files of a checkpoint.

    Yield messages of the progress, and return the checkpoint.

    Args:
        ctx: FiftyOne's context of the running operator.
        name: as `checkpoints.pull` takes it.
        with_reasoner: as `checkpoints.pull` takes it.
        options: options of `GenSegR1.from_pretrained`; the dialect, token, cache and network among them count.
        newest: as `checkpoints.pull` takes it.

    Raises:
        CheckpointError: as `checkpoints.pull`.
    """
    asked: dict[str, Any] = {"with_reasoner": with_reasoner, "dialect": options.get("dialect"), "newest": newest}
    asked["options"] = pick(HubOptions, options)
    plan = checkpoints.plan(name, **asked)
    missing, here = plan.missing, 0
    arrived: SimpleQueue[int | None] = SimpleQueue()
    if missing:
        arrived.put(0)
    with ThreadPoolExecutor(1, thread_name_prefix="pull") as worker:
        download = worker.submit(checkpoints.pull, plan.name, plan.resolved, on_bytes=arrived.put, **asked)
        download.add_done_callback(lambda _: arrived.put(None))
        while (count := arrived.get()) is not None:
            here = min(missing, here + count)
            words = f"{checkpoints.readable_size(here)} of {checkpoints.readable_size(missing)} of {name}, into "
            yield from tell(ctx, here / missing if missing else 1.0, f"{words}{constants.HF_HUB_CACHE}")
        return download.result()
