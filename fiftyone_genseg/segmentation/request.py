"""Request of a run: its defaults, and the checks that refuse it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Literal

from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import NANO
from genseg_hub.errors import CheckpointError
from genseg_hub.options import OF_WEIGHTS, HubOptions, ReasonerOptions, ServerOptions, pick
from genseg_hub.reasoners.serving import checked_address
from genseg_hub.schema import normalize_expression

from fiftyone_genseg.messages import sentence
from fiftyone_genseg.segmentation import expressions as typed_lines
from fiftyone_genseg.segmentation.remote_images import RemoteImages

if TYPE_CHECKING:
    import fiftyone as fo

Existing = Literal["skip", "overwrite"]
EngineName = Literal["local", "ray"]
SKIP: Final = "skip"
OVERWRITE: Final = "overwrite"
LOCAL: Final = "local"
RAY: Final = "ray"
DEFAULT_EXPRESSION = "the main object"
MAX_BATCH_SIZE = 512
MODEL_OPTIONS = tuple(
    option.name
    for kind in (ReasonerOptions, HubOptions, ServerOptions)
    for option in fields(kind)
    if option.name != "token"
)
# Words of the form and of Python for the source of the expressions.
TYPED, FIELD = "typed", "field"


@dataclass(frozen=True)
class SegmentRequest:
    """A request to segment the samples of a view.

    Attributes:
        expressions: asked of every sample; normalized, each once. A string has one expression on each line, and may
            have its class behind an arrow: "the red car -> car".
        classes: expression -> class, the label of its masks. Without a class, an expression of `expressions` is its
            own label, and the masks of `expression_field` are labelled "referred".
        expression_field: field with each sample's own expression, or list of them, in place of `expressions`.
        checkpoint, revision: see `GenSegR1.from_pretrained`. The default is nano, because a script must do the same on
            every machine; forms and commands ask `default_checkpoint`.
        output_field: field of the masks; see `labels` for the stored labels.
        existing: "skip" leaves an expression alone that has a result and asks failed ones again; "overwrite" asks
            again and replaces. Results of other expressions always stay.
        batch_size: expressions that the reasoner answers at once, and that are written at once.
        engine: "local" for this process, "ray" for workers on a Ray cluster.
        device: device of the model in this process; Ray gives its workers theirs.
        server: address of the server that has the reasoner; None to load the reasoner here.
        served_model: name of the model on the server. With the default checkpoint, nano, the server's model counts and
            no checkpoint: its name tells the dialect. Without it, an empty checkpoint means the server's only model.
        segmenter: segmenter in place of the checkpoint's own.
        model_options: other options of `GenSegR1.from_pretrained` by name: options of `ReasonerOptions`, and
            `cache_dir`, `local_files_only` and `force_download`. The token is none of them, because a run keeps its
            request.
        workers, gpus_per_worker, address: see `engines.ray.ray_engine`.
        images: "FOLDER=URL" if workers read the images under a URL, see `RemoteImages`; None for the samples' paths.
    """

    expressions: tuple[str, ...] = ()
    expression_field: str | None = None
    classes: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str = NANO
    revision: str | None = None
    output_field: str = "genseg"
    existing: Existing = SKIP
    batch_size: int = 8
    engine: EngineName = LOCAL
    device: str = "auto"
    server: str | None = None
    served_model: str | None = None
    segmenter: str | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 2
    gpus_per_worker: float | None = None
    address: str | None = None
    images: str | None = None

    def __post_init__(self):
        """Read the lines of a string, and normalize the expressions and classes."""
        given: Iterable[str] = self.expressions
        classes: dict[str, str] = {}
        if isinstance(given, str):
            given, classes = typed_lines.read(given.split("\n"))
        normalized = dict.fromkeys(map(normalize_expression, given))
        object.__setattr__(self, "expressions", tuple(expression for expression in normalized if expression))
        for expression, name in self.classes.items():
            classes[normalize_expression(expression)] = normalize_expression(name)
        object.__setattr__(self, "classes", classes)

    @property
    def labels(self) -> dict[str, str]:
        """Return expression -> label, for masks that are not labelled "referred"."""
        return {**{expression: expression for expression in self.expressions}, **self.classes}

    @property
    def name(self) -> str | None:
        """Return the checkpoint with its segmenter, for `checkpoints.pull`.

        Return None if only the server knows the model.
        """
        if self.server and (not self.checkpoint or (self.served_model and self.checkpoint == NANO)):
            return None
        return f"{self.checkpoint}+{self.segmenter}" if self.segmenter else self.checkpoint

    @classmethod
    def from_params(cls, samples: fo.Dataset | fo.DatasetView | None, params: Mapping[str, Any]) -> SegmentRequest:
        """Read a form.

        Args:
            samples: the samples of the form. Their fields decide the meaning of an untouched form; None for no dataset.
            params: the form's values by name. `source` is "typed" or "field"; without it, expressions that are given
                are meant. Missing values, and None, mean the defaults. With `classes`, pairs of an expression and its
                class, the arrows of `expressions` are text.
        """
        from fiftyone_genseg.fields import default_expressions, expression_fields

        given = {name: value for name, value in params.items() if value is not None}
        chosen = {name: given[name] for name in cls.__dataclass_fields__ if name in given}
        own_field = default_expressions(samples)
        source = given.get("source") or (TYPED if given.get("expressions") or own_field is None else FIELD)
        if source == FIELD:
            chosen.pop("expressions", None)
            chosen.setdefault("expression_field", own_field or next(iter(expression_fields(samples)), None))
        else:
            chosen.pop("expression_field", None)
            chosen.setdefault("expressions", DEFAULT_EXPRESSION)
        if "classes" in given:
            chosen["classes"] = dict(given["classes"])
            if isinstance(chosen.get("expressions"), str):
                chosen["expressions"] = tuple(chosen["expressions"].split("\n"))
        hidden = given.get("advanced") is False  # a form keeps the values of fields that it no longer shows
        options = {} if hidden else {name: given[name] for name in MODEL_OPTIONS if name in given}
        chosen["model_options"] = {name: value for name, value in options.items() if value != "" and value is not False}
        for name in ("server", "served_model", "segmenter", "images"):
            chosen[name] = str(given.get(name) or "").strip() or None
        if chosen["server"] is None:
            chosen.pop("served_model")  # of a form whose address was taken out again
            for name in ServerOptions.__dataclass_fields__:
                if "advanced" in given:
                    chosen["model_options"].pop(name, None)
        if given.get("engine") == RAY:
            chosen.pop("device", None)  # of a form that was filled before Ray was chosen
        elif "advanced" in given:
            chosen.pop("images")  # of a form in which Ray was chosen before
        return cls(**chosen)

    def to_params(self) -> dict[str, Any]:
        """Return the form's values that `from_params` reads as this request."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__ if name != "model_options"},
            **self.model_options,
            "source": FIELD if self.expression_field else TYPED,
            "expressions": "\n".join(self.expressions),
            "classes": [list(pair) for pair in self.classes.items()],
        }

    @property
    def options_in_words(self) -> str | None:
        """Return the given options that change answers, as each result stores them.

        Return None for the defaults.
        """
        chosen = pick(ReasonerOptions, self.model_options).fingerprint()
        return ", ".join(f"{name}={value}" for name, value in sorted(chosen.items())) or None

    def check(self, samples: fo.Dataset | fo.DatasetView) -> None:
        """Raise unless the request can be run; nothing is asked or written.

        Raises:
            ValueError: for samples, fields or values that cannot be used.
            CheckpointError: for a name that can be no checkpoint, and files of a local one that cannot be used.
        """
        from fiftyone_genseg import fields, outputs

        fields.check_view(samples)
        typed_lines.check_classes(self.classes, self.expressions)
        if bool(self.expressions) == bool(self.expression_field):
            raise ValueError("give either expressions or the name of a sample field that holds them")
        if self.expression_field:
            fields.check_expression_field(samples, self.expression_field)
        if not isinstance(self.batch_size, int) or not 1 <= self.batch_size <= MAX_BATCH_SIZE:
            raise ValueError(f"the batch size must be between 1 and {MAX_BATCH_SIZE}, not {self.batch_size}")
        if self.existing not in (SKIP, OVERWRITE):
            raise ValueError(f"for existing results choose {SKIP!r} or {OVERWRITE!r}, not {self.existing!r}")
        if not self.checkpoint and not self.server:
            raise ValueError("name a checkpoint; it may be left out only with a server")
        self._check_engine()
        if self.images:
            RemoteImages.parse(self.images).check(samples)
        unknown = set(self.model_options) - set(MODEL_OPTIONS)
        if unknown:
            raise ValueError(f"there is no option {min(unknown)!r}; choose from {', '.join(MODEL_OPTIONS)}")
        dialect = pick(ReasonerOptions, self.model_options).dialect
        pick(ServerOptions, self.model_options)
        of_server = [name for name in ServerOptions.__dataclass_fields__ if name in self.model_options]
        if of_server and not self.server:
            raise ValueError(f"{', '.join(of_server)} belong to a server; give its address, too")
        loaded = [name for name in OF_WEIGHTS if name in self.model_options]
        if self.server and loaded:
            raise ValueError(f"the server has loaded the weights; give {', '.join(loaded)} to the server instead")
        outputs.check_fields(samples, str(self.output_field))
        # A segmenter is checked beside nano where there is no checkpoint.
        name = self.name or (f"{NANO}+{self.segmenter}" if self.segmenter else NANO)
        checkpoints.check_available(name, self.server is None, dialect)

    def _check_engine(self) -> None:
        if self.server is not None:
            checked_address(self.server)
        elif self.served_model:
            raise ValueError(f"the model {self.served_model} is on a server; give its address, too")
        if self.engine not in (LOCAL, RAY):
            raise ValueError(f"there is no engine {self.engine!r}; choose {LOCAL!r} or {RAY!r}")
        if self.engine == LOCAL:
            if self.images:
                raise ValueError(
                    f"only workers on Ray read images from a URL; choose the engine {RAY!r}, or leave images out"
                )
            return
        if not isinstance(self.workers, int) or self.workers < 1:
            raise ValueError(f"there must be at least one worker, not {self.workers}")
        if self.server:
            raise ValueError(
                "workers on Ray load the reasoner themselves; leave the server out, or choose this process"
            )
        if self.device != "auto":
            raise ValueError(f"workers on Ray have the device that Ray gives them, not {self.device!r}; set their GPUs")

    def problem(self, samples: fo.Dataset | fo.DatasetView | None) -> str | None:
        """Return why the request cannot be run, as a sentence; None when it can."""
        if samples is None:
            return "Open a dataset first."
        if not len(samples):
            return "There are no samples to segment: clear the filters."
        try:
            self.check(samples)
        except (ValueError, CheckpointError) as error:
            return sentence(error)
        return None
