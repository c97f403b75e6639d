"""Compare SAM 3 by words with FiftyOne's zoo model on the same weights.

Both have their real size.

python benchmarks/sam3_zoo.py --converter convert_sam3_to_hf.py --vocabulary bpe_simple_vocab_16e6.txt.gz

The zoo model is `segment-anything-3-image-torch`, which the package sam3 of its authors computes. This project computes
SAM 3 with Transformers' `Sam3Model`. Without `--checkpoint`, both get the same random weights. With it, both get the
sam3.pt of the authors. The converter is the file src/transformers/models/sam3/convert_sam3_to_hf.py of the repository
huggingface/transformers. The vocabulary comes with CLIP (also in the package open_clip_torch). The package sam3 asks
for an older huggingface-hub, so give it a folder of its own:

    pip install --no-deps --target sam3_only sam3==0.1.4 timm "iopath<0.2" portalocker ftfy wcwidth einops
    PYTHONPATH=sam3_only python benchmarks/sam3_zoo.py ...

sam3 0.1.4 makes a few tensors on a GPU, whether there is one or not; this script moves them to the CPU.
"""

from __future__ import annotations

import argparse
import gzip
import os
import runpy
import time
from pathlib import Path
from typing import Any

from own_database import HOME, fo  # isort: skip
import numpy as np
import torch
import transformers
from genseg_hub import GenSegR1
from genseg_hub.image_files import open_image
from genseg_hub.segmenters.base import WEIGHTS_FILE
from genseg_hub.segmenters.words import Words
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from fiftyone_genseg import labels

PHRASES = ("person", "dog", "red cup", "the sky", "a tree", "two cats on a sofa", "car", "window")
PHOTOS = (Path(__file__).parents[1] / "examples" / "photos" / "images" / "000000000436.jpg",)
VOCABULARY = 48_894  # merges that CLIP uses, of those in the file


class OnCpu(TorchFunctionMode):
    """Make every tensor on the CPU."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function on the CPU."""
        if function is torch.Tensor.pin_memory:
            return args[0]
        kwargs = dict(kwargs or {})
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


def spread(model: torch.nn.Module, seed: int) -> None:
    """Give a model random weights that keep the size of what they are given."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2 if "embed" in name else 1.2 / parameter[0].numel() ** 0.5)


def spread_scores(folder: Path, checkpoint: Path, image: Path, phrases: list[str]) -> None:
    """Spread the scores of the 200 queries to both sides of the threshold.

    With random weights all queries have nearly the same score, for each phrase another one. The layer that scores them
    is shifted and scaled, in both files.
    """
    words = Words.load(folder, "cpu")
    scoring = words._model.dot_product_scoring
    queries: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []
    scoring.query_proj.register_forward_pre_hook(lambda _, inputs: queries.append(inputs[0][-1].flatten(0, -2)))
    scoring.register_forward_hook(lambda _, inputs, output: logits.append(output[-1].flatten(1)))
    words.find(np.asarray(open_image(image)[0].convert("RGB")), phrases)
    weight = scoring.query_proj.weight.detach() * (1.5 / float(logits[0].std(1).mean()))
    bias = -queries[0].mean(0) @ weight.T
    name = "detector.dot_prod_scoring.hs_proj"
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    stored["model"] |= {f"{name}.weight": weight, f"{name}.bias": bias}
    torch.save(stored, checkpoint)
    tensors = load_file(folder / WEIGHTS_FILE)
    name = "dot_product_scoring.query_proj"
    save_file(tensors | {f"{name}.weight": weight, f"{name}.bias": bias}, folder / WEIGHTS_FILE, {"format": "pt"})


def random_checkpoint(file: Path, vocabulary: Path, seed: int) -> None:
    """Write a sam3.pt with random weights."""
    from sam3 import model_builder

    model = model_builder.build_sam3_image_model(
        bpe_path=str(vocabulary), device="cpu", load_from_HF=False, enable_inst_interactivity=True
    )
    spread(model, seed)
    inner = "inst_interactive_predictor.model."
    weights = {
        f"tracker.{name.removeprefix(inner)}" if name.startswith(inner) else f"detector.{name}": tensor
        for name, tensor in model.state_dict().items()
    }
    torch.save({"model": weights}, file)


def converted(checkpoint: Path, converter: Path, vocabulary: Path, folder: Path) -> None:
    """Write the folder of Transformers' model, with the weights of a sam3.pt."""
    public = runpy.run_path(str(converter))
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    stored = stored.get("model", stored)
    old = {name.removeprefix("detector."): tensor for name, tensor in stored.items() if name.startswith("detector.")}
    names = public["convert_old_keys_to_new_keys"](list(old))
    new = {names[name]: tensor for name, tensor in old.items()}
    positions = "vision_encoder.backbone.embeddings.position_embeddings"
    new[positions] = new[positions][:, 1:]  # without the class token
    new = public["split_qkv"](new)
    new["text_encoder.text_projection.weight"] = new["text_encoder.text_projection.weight"].T
    model = transformers.Sam3Model(transformers.Sam3Config())
    missing, unexpected = model.load_state_dict(new, strict=False)
    print(f"weights that only Transformers has: {missing}; that only Meta has: {sorted(unexpected)[:8]}", flush=True)
    model.save_pretrained(folder)
    processor(vocabulary).save_pretrained(folder)


def processor(vocabulary: Path) -> transformers.Sam3Processor:
    """Return the processor of facebook/sam3, with CLIP's tokenizer."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    with gzip.open(vocabulary, "rt", encoding="utf-8") as file:
        merges: Any = [tuple(line.split()) for line in file.read().split("\n")[1 : VOCABULARY + 1]]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=merges)
    return transformers.Sam3Processor(transformers.Sam3ImageProcessor(), tokenizer)


def zoo_answers(images: list[Path], checkpoint: Path, vocabulary: Path, phrases: list[str]) -> fo.Dataset:
    """Return a dataset with the detections of FiftyOne's zoo model in the field `zoo`."""
    from fiftyone.utils.sam3 import SegmentAnything3ImageModel, SegmentAnything3ImageModelConfig

    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(str(image)) for image in images], progress=False)
    config = SegmentAnything3ImageModelConfig(
        {
            "entrypoint_fcn": "sam3.model_builder.build_sam3_image_model",
            "entrypoint_args": {
                "checkpoint_path": str(checkpoint),
                "bpe_path": str(vocabulary),
                "device": "cpu",
                "load_from_HF": False,
            },
            "model_path": str(checkpoint),
            "classes": phrases,
        }
    )
    begun = time.perf_counter()
    dataset.apply_model(SegmentAnything3ImageModel(config), label_field="zoo", progress=False)
    print(f"FiftyOne's zoo model: {time.perf_counter() - begun:.0f} s", flush=True)
    return dataset


def compare(dataset: fo.Dataset, folder: Path, phrases: list[str]) -> None:
    """Print how far the detections of each phrase are apart.

    They are paired by the rank of their scores. An answer of this project holds the best 100, so detections of the zoo
    beyond them have no partner.
    """
    model = GenSegR1.from_pretrained(str(folder), device="cpu")
    ious: list[float] = []
    scores: list[float] = []
    alone = 0
    print(
        "| image | phrase | zoo | ours | least mask IoU | largest difference of scores |\n|---|---|---:|---:|---:|---:|"
    )
    for sample in dataset.iter_samples():
        size = open_image(sample.filepath)[0].size
        for phrase in phrases:
            theirs = [each for each in sample.zoo.detections if each.label == phrase]
            mine = labels.detections(model.segment(sample.filepath, phrase), label=phrase)
            pairs = list(
                zip(*(sorted(side, key=lambda each: -each.confidence) for side in (mine, theirs)), strict=False)
            )
            both = [
                [labels.instance_masks(fo.Detections(detections=[each]), size)[0] for each in pair] for pair in pairs
            ]
            found = [float((one & other).sum() / max(1, (one | other).sum())) for one, other in both]
            apart = [abs(one.confidence - other.confidence) for one, other in pairs]
            alone += abs(len(mine) - len(theirs))
            ious, scores = ious + found, scores + apart
            cells = (Path(sample.filepath).name, phrase, len(theirs), len(mine), min(found, default=1.0))
            print("| {} | {} | {} | {} | {:.4f} | {:.5f} |".format(*cells, max(apart, default=0.0)), flush=True)
    print(
        f"{len(ious)} pairs: mean mask IoU {sum(ious) / max(1, len(ious)):.4f}, least {min(ious, default=1.0):.4f}, "
        f"scores at most {max(scores, default=0.0):.5f} apart; {alone} detections without a partner"
    )


def main() -> None:
    """Compare both on the same images and phrases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--converter", type=Path, required=True, help="convert_sam3_to_hf.py, see above")
    parser.add_argument("--vocabulary", type=Path, required=True, help="bpe_simple_vocab_16e6.txt.gz")
    parser.add_argument("--checkpoint", type=Path, help="sam3.pt of Meta; random weights by default")
    parser.add_argument("--images", type=Path, nargs="+", default=list(PHOTOS), help="one photograph by default")
    parser.add_argument("--phrases", nargs="+", default=list(PHRASES), help="phrases")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights")
    options = parser.parse_args()
    folder = Path(os.environ["HOME"], "sam3")
    checkpoint = options.checkpoint or Path(HOME.name, "sam3.pt")
    with OnCpu():
        if options.checkpoint is None:
            random_checkpoint(checkpoint, options.vocabulary, options.seed)
    converted(checkpoint, options.converter, options.vocabulary, folder)
    if options.checkpoint is None:
        spread_scores(folder, checkpoint, options.images[0], options.phrases)
    with OnCpu():
        dataset = zoo_answers(options.images, checkpoint, options.vocabulary, options.phrases)
    compare(dataset, folder, options.phrases)
    dataset.delete()


if __name__ == "__main__":
    main()
