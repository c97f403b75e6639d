"""What a run is asked to do: the one place of its defaults and of what is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import NANO
from genseg_hub.errors import CheckpointError
from genseg_hub.reasoners.serving import checked_address
from genseg_hub.schema import normalize_expression

from fiftyone_genseg.messages import sentence

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
# What the form and Python say of where the expressions are.
TYPED, FIELD = "typed", "field"


@dataclass(frozen=True)
class SegmentRequest:
    """A request to segment the samples of a view.

    Attributes:
        expressions: asked of every sample; normalized, each once. A string has one expression on each line.
        expression_field: string field with each sample's own expression, in place of `expressions`.
        checkpoint, revision: see `GenSegR1.from_pretrained`.
        output_field: field of the masks; see `labels` for what is stored.
        existing: "skip" leaves an expression alone that has a result and asks failed ones again; "overwrite" asks
            again and replaces. Results of other expressions always stay.
        batch_size: expressions that the reasoner answers at once, and that are written at once.
        engine: "local" for this process, "ray" for workers on a Ray cluster.
        device: device of the model in this process; Ray gives its workers theirs.
        server: address of the server that has the reasoner; None to load the reasoner here.
        workers, gpus_per_worker, address: see `engines.ray.ray_engine`.
    """

    expressions: tuple[str, ...] = ()
    expression_field: str | None = None
    checkpoint: str = NANO
    revision: str | None = None
    output_field: str = "genseg"
    existing: Existing = SKIP
    batch_size: int = 8
    engine: EngineName = LOCAL
    device: str = "auto"
    server: str | None = None
    workers: int = 2
    gpus_per_worker: float | None = None
    address: str | None = None

    def __post_init__(self):
        """Normalize the expressions."""
        given: Iterable[str] = self.expressions.split("\n") if isinstance(self.expressions, str) else self.expressions
        normalized = dict.fromkeys(map(normalize_expression, given))
        object.__setattr__(self, "expressions", tuple(expression for expression in normalized if expression))

    @classmethod
    def from_params(cls, samples: fo.Dataset | fo.DatasetView | None, params: Mapping[str, Any]) -> SegmentRequest:
        """Read a form.

        Args:
            samples: what the form is about. Its fields decide what an untouched form means; None for no dataset.
            params: the form's values by name. `source` is "typed" or "field"; without it, expressions that are given
                are meant. Missing values, and None, mean the defaults.
        """
        from fiftyone_genseg.fields import default_expressions, string_fields

        given = {name: value for name, value in params.items() if value is not None}
        chosen = {name: given[name] for name in cls.__dataclass_fields__ if name in given}
        field = default_expressions(samples)
        source = given.get("source") or (TYPED if given.get("expressions") or field is None else FIELD)
        if source == FIELD:
            chosen.pop("expressions", None)
            chosen.setdefault("expression_field", field or next(iter(string_fields(samples)), None))
        else:
            chosen.pop("expression_field", None)
            chosen.setdefault("expressions", DEFAULT_EXPRESSION)
        chosen["server"] = str(given.get("server") or "").strip() or None
        if given.get("engine") == RAY:
            chosen.pop("device", None)  # of a form that was filled before Ray was chosen
        return cls(**chosen)

    def to_params(self) -> dict[str, Any]:
        """Return the form's values that `from_params` reads as this request."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "source": FIELD if self.expression_field else TYPED,
            "expressions": "\n".join(self.expressions),
        }

    def check(self, samples: fo.Dataset | fo.DatasetView) -> None:
        """Raise unless the request can be run; nothing is asked or written.

        Raises:
            ValueError: for samples, fields or values that cannot be used.
            CheckpointError: for a name that can be no checkpoint, and files of a local one that cannot be used.
        """
        from fiftyone_genseg import fields, labels

        fields.check_view(samples)
        if bool(self.expressions) == bool(self.expression_field):
            raise ValueError("give expressions or the name of a sample field that holds one, not both and not neither")
        if self.expression_field:
            fields.check_expression_field(samples, self.expression_field)
        if not isinstance(self.batch_size, int) or not 1 <= self.batch_size <= MAX_BATCH_SIZE:
            raise ValueError(f"the batch size must be between 1 and {MAX_BATCH_SIZE}, not {self.batch_size}")
        if self.existing not in (SKIP, OVERWRITE):
            raise ValueError(f"where a result exists, choose {SKIP!r} or {OVERWRITE!r}, not {self.existing!r}")
        self._check_engine()
        labels.check_fields(samples, str(self.output_field))
        checkpoints.check_available(str(self.checkpoint), with_reasoner=self.server is None)

    def _check_engine(self) -> None:
        if self.server is not None:
            checked_address(self.server)
        if self.engine not in (LOCAL, RAY):
            raise ValueError(f"there is no engine {self.engine!r}; choose {LOCAL!r} or {RAY!r}")
        if self.engine == LOCAL:
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
            return "There are no samples to segment."
        try:
            self.check(samples)
        except (ValueError, CheckpointError) as error:
            return sentence(error)
        return None
