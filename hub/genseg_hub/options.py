"""Options of loading a checkpoint, with Transformers' names and meanings.

Each option stands here once. `GenSegR1.from_pretrained`, the commands, the forms and `genseg.json` read it from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

from genseg_hub import dialects

DTYPES = ("auto", "bfloat16", "float16", "float32")
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
QUANTIZATIONS = ("4bit", "8bit")
TRANSFORMERS, VLLM = BACKENDS = ("transformers", "vllm")
# Options of the weights, which a server has loaded already.
OF_WEIGHTS = ("dtype", "device_map", "attn_implementation", "quantization", "backend")
OF_TRANSFORMERS = ("device_map", "attn_implementation", "quantization")
# With the package `kernels`, Transformers would download any other attention from the Hub and run its code.
ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
# Tokens of an image. A photograph of 1920 x 1080 pixels has 2,040 in Qwen3-VL, so it is shown as it is.
MAX_IMAGE_TOKENS = 2048
# Tokens of an answer whose thought the chat template opens. Qwen's own grounding evaluation allows 32,768 tokens.
THINKING_TOKENS = 8192

_Options = TypeVar("_Options", "ReasonerOptions", "HubOptions", "ServerOptions")


def _option(help_text: str, choices: tuple[str, ...] = (), secret: bool = False) -> Any:
    return field(default=None, repr=not secret, metadata={"help": help_text, "choices": choices})


@dataclass(frozen=True)
class ReasonerOptions:
    """Options of a reasoner: how it is loaded and asked.

    None leaves the choice to `genseg.json`, and then to this package.

    Attributes:
        dialect: name of a dialect, in place of the dialect of the checkpoint's family.
        max_new_tokens: token limit of an answer. Default: the dialect's, or THINKING_TOKENS if the chat template opens
            a thought.
        max_pixels: largest number of pixels of the image as the reasoner sees it. Default: MAX_IMAGE_TOKENS tokens. A
            larger image is shown smaller; the segmenter always sees the original.
        min_pixels: smallest number of pixels of the image as the reasoner sees it. Default: the processor's.
        dtype: dtype of the weights, one of DTYPES; "auto" is the stored one. Default: bfloat16 on a GPU and on a CPU
            that computes in it, else float32.
        device_map: device map of Transformers and Accelerate, one of DEVICE_MAPS or a dict from module to device;
            spreads the weights over several devices. Default: all weights on the device.
        attn_implementation: one of ATTENTIONS. Default: Transformers' choice.
        quantization: one of QUANTIZATIONS, through bitsandbytes. Default: as the checkpoint's config.json declares.
        backend: one of BACKENDS, the library that computes the answers. Default: Transformers; on workers of Ray that
            have a GPU each, vLLM if it is installed there.
    """

    dialect: str | None = _option("How the checkpoint is prompted and read, if config.json does not tell.")
    max_new_tokens: int | None = _option("Token limit of an answer.")
    max_pixels: int | None = _option("Most pixels of the image as the reasoner sees it (2,048 tokens by default).")
    min_pixels: int | None = _option("Fewest pixels of the image as the reasoner sees it.")
    dtype: str | None = _option("Number type of the reasoner's weights.", DTYPES)
    device_map: str | Mapping[str, Any] | None = _option("Spread the reasoner over several devices.", DEVICE_MAPS)
    attn_implementation: str | None = _option("Attention of the reasoner.", ATTENTIONS)
    quantization: str | None = _option("Load the reasoner's weights as 4-bit or 8-bit numbers.", QUANTIZATIONS)
    backend: str | None = _option("Library that computes the answers.", BACKENDS)

    def __post_init__(self):
        """Raise ValueError for a value that no checkpoint can take."""
        if self.dialect is not None:
            dialects.get_dialect(self.dialect)
        for name in ("max_new_tokens", "max_pixels", "min_pixels"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}; swap them")
        for name in OF_WEIGHTS:
            value, choices = getattr(self, name), self.__dataclass_fields__[name].metadata["choices"]
            spread = name == "device_map" and isinstance(value, Mapping)
            if value is not None and not spread and value not in choices:
                raise ValueError(f"there is no {name} {value!r}; choose one of {', '.join(choices)}")
        others = [name for name in OF_TRANSFORMERS if getattr(self, name)]
        if self.backend == VLLM and others:
            raise ValueError(
                f"{', '.join(others)} belong to Transformers; leave them out, or leave the backend vllm out"
            )

    def over(self, others: ReasonerOptions) -> ReasonerOptions:
        """Return these options; a None takes the value of `others`."""
        return replace(others, **given(self))

    def fingerprint(self) -> dict[str, str]:
        """Return the options that change answers, for the fingerprint of a run."""
        return {name: str(value) for name, value in given(self).items() if name != "device_map"}


@dataclass(frozen=True)
class HubOptions:
    """Options of fetching files from the Hub.

    `huggingface_hub.snapshot_download` takes arguments of the same names.

    Attributes:
        token: token of the Hub; None for HF_TOKEN or the token of `hf auth login`. It is neither stored nor logged.
        cache_dir: folder of the cache; None for HF_HOME's.
        local_files_only: never ask the network.
        force_download: download files again that are in the cache.
    """

    token: str | None = _option(
        "Token of the Hub; HF_TOKEN or `hf auth login` keeps it out of the shell's history.", (), True
    )
    cache_dir: str | None = _option("Folder of downloaded files; HF_HOME by default.")
    local_files_only: bool | None = _option("Never ask the network.")
    force_download: bool | None = _option("Download files again that are in the cache.")


@dataclass(frozen=True)
class ServerOptions:
    """Options of asking a server.

    Attributes:
        concurrency: requests that are open at once. Default: 32, or 2 for Ollama, LM Studio and llama.cpp, which answer
            one by one.
        timeout: seconds that one attempt waits for its answer; 600 by default.
    """

    concurrency: int | None = _option("Requests to a server that are open at once.")
    timeout: float | None = _option("Seconds that one attempt waits for a server's answer.")

    def __post_init__(self):
        """Raise ValueError for a value that cannot be."""
        for name, value in asdict(self).items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
                raise ValueError(f"{name} must be above 0, not {value!r}")


def given(options: ReasonerOptions | HubOptions | ServerOptions) -> dict[str, Any]:
    """Return the options that are not None."""
    return {name: value for name, value in asdict(options).items() if value is not None}


def pick(kind: type[_Options], values: Mapping[str, Any]) -> _Options:
    """Return the options of a kind among values; other values are left out.

    Raises:
        ValueError: as the constructor.
    """
    return kind(**{option.name: values[option.name] for option in fields(kind) if option.name in values})
