"""Stage 2 of nano: the warm start of the reasoner on rendered scenes.

Several queries about one image are packed behind one shared prefix (instructions and image). Each query sees the prefix
and itself, at the positions that it would have alone. Only nano needs a warm start; real checkpoints go straight to
GRPO.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from genseg_hub.answers import read
from genseg_hub.dialects import genseg
from genseg_hub.evaluation.metrics import box_iou
from genseg_hub.reasoners import transformers as reasoners
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.whole import written_folder
from PIL import Image

from genseg_training.nano import answers, architecture, loop
from genseg_training.nano.expressions import EXPRESSION_KINDS, NEW_KINDS, SceneQuery, refer
from genseg_training.nano.scenes import CANVASES, Scene, scene

_IGNORE = -100
MAX_NEW_TOKENS = 320
HELD_OUT_QUERIES = 192
DECISION_WEIGHT = 4.0


@dataclass
class SftConfig(loop.LoopConfig):
    """Settings of the warm start."""

    init: str = loop.option("runs/nano_vision/reasoner", "Checkpoint folder that starts the training.")
    easy_share: float = loop.option(0.22, "Share of the steps, at the start, whose scenes have one to three shapes.")
    questions: int = loop.option(5, "Expressions packed behind one image.")
    kinds: list[str] = field(
        default_factory=lambda: list(EXPRESSION_KINDS),
        metadata={"help": f"Kinds of expression that are shown: any of {', '.join(EXPRESSION_KINDS | NEW_KINDS)}."},
    )
    think_share: float = loop.option(1.0, "Share of the answers with a think part that is not empty.")
    vision_scale: float = loop.option(0.2, "Learning-rate factor of the pretrained vision tower.")
    sigma_start: float = loop.option(14.0, "Width, in thousandths, of a coordinate's soft label at the first step.")
    sigma_end: float = loop.option(3.0, "Width, in thousandths, of a coordinate's soft label at the last step.")


def curriculum(rng: random.Random, progress: float, easy_share: float) -> int | None:
    """Draw the number of shapes: one at first, then up to two, then up to three.

    After these easy steps the number is None, and a scene draws the benchmark's 2 to 6 shapes.

    Args:
        rng: the only source of randomness.
        progress: share of the steps that are done.
        easy_share: share of the steps with few shapes; 0 for none.
    """
    if progress >= easy_share:
        return None
    return rng.randint(1, 1 + min(2, int(4 * progress / easy_share)))


def weights_of(kinds: Sequence[str]) -> dict[str, int]:
    """Return kinds of expression with their weights in the draw.

    Args:
        kinds: names from EXPRESSION_KINDS or NEW_KINDS.

    Raises:
        ValueError: there is no such kind, or none is named.
    """
    known = EXPRESSION_KINDS | NEW_KINDS
    wrong = [kind for kind in kinds if kind not in known]
    if wrong or not kinds:
        raise ValueError(f"there is no kind of expression {(wrong or [''])[0]!r}; choose from {', '.join(known)}")
    return {kind: known[kind] for kind in kinds}


def ask(
    rng: random.Random, drawn: list[Scene], questions: int, kinds: Mapping[str, int]
) -> tuple[list[Scene], list[list[SceneQuery]]]:
    """Draw queries about scenes.

    Another scene takes the place of a scene that supports none of the kinds.

    Args:
        rng: the only source of randomness.
        drawn: scenes of one canvas size.
        questions: queries about each scene.
        kinds: kind -> weight in the draw.

    Returns:
        The scenes, and the queries about each of them.
    """
    scenes, asked = [], []
    for one in drawn:
        while True:
            try:
                asked.append([refer(rng, one, allow_held_out=False, kinds=kinds) for _ in range(questions)])
            except ValueError:
                one = scene(rng, canvas=one.size, allow_held_out=False)
            else:
                scenes.append(one)
                break
    return scenes, asked


class Packer:
    """Pack scenes and queries into a padded batch of tokens, positions and labels.

    Args:
        processor: processor of nano.
        model: model of nano; it computes positions.
    """

    def __init__(self, processor, model):
        self.processor, self.tokenizer, self.model = processor, processor.tokenizer, model
        text = processor.apply_chat_template(genseg.messages((1, 1), "x"), tokenize=False, add_generation_prompt=True)
        self.prefix, _, rest = text.partition("<|vision_end|>")
        self.prefix += "<|vision_end|>"
        _, _, self.suffix = rest.partition("Expression: x")
        self._prefixes: dict[tuple[int, int], tuple[list[int], torch.Tensor]] = {}

    def ids(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def shared(self, grid: torch.Tensor) -> tuple[list[int], torch.Tensor]:
        """Return token ids and positions (int64[3, L]) of the prefix.

        Args:
            grid: grid of the image, int64[3]: (1, rows, columns).
        """
        key = tuple(grid[1:].tolist())
        if key not in self._prefixes:
            pad = "<|image_pad|>"
            count = int(grid.prod()) // architecture.MERGE**2
            ids = torch.tensor([self.ids(self.prefix.replace(pad, pad * count))])
            is_image = (ids == self.tokenizer.convert_tokens_to_ids(pad)).int()
            positions, _ = self.model.model.get_rope_index(ids, mm_token_type_ids=is_image, image_grid_thw=grid[None])
            self._prefixes[key] = ids[0].tolist(), positions[:, 0]
        return self._prefixes[key]

    def pack(
        self, scenes: list[Scene], queries: list[list[SceneQuery]], answered: list[list[str]]
    ) -> dict[str, torch.Tensor]:
        """Pack scenes of one canvas size with their queries and answers.

        Args:
            scenes: scenes of one canvas size.
            queries: queries of each scene.
            answered: the answer text of each query.

        Returns:
            `input_ids`, `labels` and `weights` [B, L], `position_ids` [3, B, L], and the inputs of the image processor.
            `sees` bool[B, 1, L, L] says whether a token attends to another.
        """
        images = self.processor.image_processor(images=[s.image for s in scenes], return_tensors="pt")
        prefix, prefix_positions = self.shared(images["image_grid_thw"][0])
        first = int(prefix_positions.max()) + 1
        rows = []
        for asked, said in zip(queries, answered, strict=True):
            row = torch.stack(
                [torch.tensor(prefix), torch.full((len(prefix),), _IGNORE), torch.zeros(len(prefix)).long()]
            )
            pieces, piece_positions = [row], [prefix_positions]
            for number, (query, text) in enumerate(zip(asked, said, strict=True), 1):
                ask = torch.tensor(self.ids(f"Expression: {query.expression}{self.suffix}"))
                say = torch.tensor(self.ids(text + "<|im_end|>"))
                both = torch.cat([ask, say])
                label = torch.cat([torch.full_like(ask, _IGNORE), say])
                pieces.append(torch.stack([both, label, torch.full_like(both, number)]))
                piece_positions.append(torch.arange(first, first + len(both)).expand(3, -1))
            rows.append((torch.cat(pieces, 1), torch.cat(piece_positions, 1)))
        longest = -(-max(row.shape[1] for row, _ in rows) // 16) * 16

        def padded(values: list[torch.Tensor], fill: int) -> torch.Tensor:
            return torch.stack([F.pad(value, (0, longest - value.shape[-1]), value=fill) for value in values])

        ids = padded([row[0] for row, _ in rows], self.tokenizer.pad_token_id)
        labels, segments = (padded([row[k] for row, _ in rows], fill) for k, fill in ((1, _IGNORE), (2, -1)))
        positions = padded([p for _, p in rows], 0).transpose(0, 1)
        sees = (segments[:, :, None] == segments[:, None, :]) | (segments[:, None, :] == 0)
        sees &= torch.ones(longest, longest, dtype=torch.bool).tril()
        return (
            dict(images)
            | {"input_ids": ids, "position_ids": positions, "sees": sees[:, None], "labels": labels}
            | {"weights": decision_weights(labels, self.tokenizer)}
        )


def packed_attention(module, query, key, value, attention_mask=None, scaling=1.0, dropout=0.0, **kwargs):
    """Compute grouped-query attention by plain matrix products.

    The result has the dtype of the values. At this size it is faster than SDPA on a CPU. The signature is Transformers'
    attention interface.
    """
    batch, heads, length, width = query.shape
    groups, dtype = key.shape[1], value.dtype
    grouped = query.to(dtype).reshape(batch, groups, heads // groups * length, width)
    weights = torch.matmul(grouped, key.to(dtype).transpose(2, 3)).view(batch, heads, length, -1) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask.to(dtype)
    weights = torch.softmax(weights, -1).to(dtype).view(batch, groups, heads // groups * length, -1)
    return torch.matmul(weights, value).view(batch, heads, length, width).transpose(1, 2).contiguous(), None


def decision_weights(labels: torch.Tensor, tokenizer) -> torch.Tensor:
    """Return the weights of labels, float32[B, L].

    The weight is DECISION_WEIGHT for tokens that decide, else 1. Marks in the think part and the tokens after "match"
    decide. All other tokens follow from the image or from these.

    Args:
        labels: int64[B, L].
        tokenizer: tokenizer of nano.
    """

    def ids(*words: str) -> torch.Tensor:
        return torch.tensor([tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words])

    opened = torch.cumsum((labels == ids(" match")).int(), 1) > torch.cumsum((labels == ids("</think>")).int(), 1)
    marks = torch.isin(labels, ids(answers.FITS, answers.REFERENCE, answers.NEITHER))
    return torch.where(opened | marks, DECISION_WEIGHT, 1.0)


def answer_loss(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, numbers, sigma: float
) -> torch.Tensor:
    """Return the weighted mean cross-entropy.

    A coordinate's label is a Gaussian over neighbouring values.

    Args:
        logits: float32[N, V].
        labels: int64[N].
        weights: float32[N].
        numbers: (ids, values) of the coordinate tokens.
        sigma: width of the Gaussian in thousandths.
    """
    number_ids, values = numbers
    log_p = F.log_softmax(logits, -1)
    value_of = torch.full((logits.shape[1],), -1)
    value_of[number_ids] = values
    value = value_of[labels]
    is_number = value >= 0
    plain = -log_p[~is_number].gather(1, labels[~is_number, None])[:, 0]
    distance = (values[None] - value[is_number, None]) / sigma
    soft = -(torch.softmax(-0.5 * distance**2, -1) * log_p[is_number][:, number_ids]).sum(1)
    return ((plain * weights[~is_number]).sum() + (soft * weights[is_number]).sum()) / weights.sum()


def held_out_set(count: int) -> list[tuple[Scene, SceneQuery]]:
    """Return scenes and queries that neither training nor RefScenes has.

    Args:
        count: number of scenes, with one query each.
    """
    examples = []
    for index in range(count):
        rng = random.Random(f"sft-held-out-{index}")
        drawn = scene(rng, allow_held_out=False)
        examples.append((drawn, refer(rng, drawn, allow_held_out=False)))
    return examples


def evaluate_boxes(
    reasoner: TransformersReasoner, examples: list[tuple[Scene, SceneQuery]], batch: int = 64
) -> dict[str, float]:
    """Answer queries and compare boxes in their order from left to right.

    Args:
        reasoner: reasoner that answers.
        examples: scenes and queries.
        batch: queries answered at once.

    Returns:
        Mean box IoU per kind of query (for "no_target" the share of empty answers), `target_box_miou` over all queries
        with targets, and `parse_failures`, a share.
    """
    ious: dict[str, list[float]] = {}
    failures = 0
    for start in range(0, len(examples), batch):
        part = examples[start : start + batch]
        answered = reasoner.generate(
            [
                reasoners.Prompt(Image.fromarray(drawn.image), genseg.messages(drawn.size, query.expression))
                for drawn, query in part
            ]
        )
        for (drawn, query), reply in zip(part, answered, strict=True):
            response = read(genseg, reply.text, drawn.size, reply.truncated)
            failures += response.error is not None
            truth, boxes = [s.box for s in query.targets], [p.box for p in response.instances if p.box]
            if not truth:
                ious.setdefault("no_target", []).append(float(response.no_target))
                continue
            overlap = [box_iou(a, b) for a, b in zip(truth, boxes, strict=False)]
            ious.setdefault(query.kind, []).append(sum(overlap) / max(len(truth), len(boxes) + response.repeated))
    figures = {kind: float(np.mean(values)) for kind, values in ious.items()}
    figures["target_box_miou"] = float(
        np.mean([v for kind, values in ious.items() if kind != "no_target" for v in values])
    )
    return figures | {"parse_failures": failures / len(examples)}


def train(config: SftConfig) -> None:
    """Warm start the reasoner and save it.

    Args:
        config: settings of the stage.

    Raises:
        FileNotFoundError: when stage 1 has not been run.
        ValueError: for an unknown kind of expression.
    """
    kinds = weights_of(config.kinds)
    source = Path(config.init)
    if not (source / "config.json").is_file():
        raise FileNotFoundError(f"there is no checkpoint in {source}: run `genseg-train vision` first, or set --init")
    processor = transformers.AutoProcessor.from_pretrained(source)
    model = transformers.Qwen3VLForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    transformers.AttentionInterface.register("packed", packed_attention)
    model.set_attn_implementation("packed")
    packer = Packer(processor, model)
    numbers = architecture.number_tokens(processor.tokenizer)

    def make_batch(seed: str, progress: float):
        rng = random.Random(f"sft-{seed}")
        canvas = rng.choice(CANVASES)
        drawn = [
            scene(rng, curriculum(rng, progress, config.easy_share), canvas, allow_held_out=False)
            for _ in range(config.batch_images)
        ]
        drawn, asked = ask(rng, drawn, config.questions, kinds)
        said = [
            [answers.answer(q, s, thinks=rng.random() < config.think_share) for q in queries]
            for s, queries in zip(drawn, asked, strict=True)
        ]
        sigma = config.sigma_start + (config.sigma_end - config.sigma_start) * progress
        return packer.pack(drawn, asked, said) | {"sigma": sigma}

    def loss_of(batch):
        labels = batch["labels"][:, 1:]
        chosen = labels != _IGNORE
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mask = torch.zeros(batch["sees"].shape, dtype=torch.bfloat16).masked_fill_(~batch["sees"], -1e4)
            hidden = model.model(
                input_ids=batch["input_ids"],
                position_ids=batch["position_ids"],
                attention_mask=mask,
                pixel_values=batch["pixel_values"],
                image_grid_thw=batch["image_grid_thw"],
                mm_token_type_ids=(batch["input_ids"] == model.config.image_token_id).int(),
                use_cache=False,
            ).last_hidden_state
            logits = model.lm_head(hidden[:, :-1][chosen])
        weights = batch["weights"][:, 1:][chosen]
        return answer_loss(logits.float(), labels[chosen], weights, numbers, batch["sigma"]), {}

    examples = held_out_set(HELD_OUT_QUERIES)

    def evaluate() -> dict[str, float]:
        model.set_attn_implementation("sdpa")
        figures = evaluate_boxes(TransformersReasoner(model, processor, MAX_NEW_TOKENS), examples)
        model.set_attn_implementation("packed")
        return figures

    def save(folder: Path) -> None:
        with written_folder(folder / "reasoner") as new:
            model.save_pretrained(new)
            processor.save_pretrained(new)

    def scale(name: str) -> float:
        return config.vision_scale if "visual" in name else 1.0

    loop.train(model, loop.muon_and_adamw(model, config, scale), config, make_batch, loss_of, evaluate, save)
