"""Find the model that a name means among the models that a server lists.

Servers name the same weights in their own ways: `Qwen/Qwen3-VL-8B-Instruct` is `qwen3-vl:8b-instruct` on Ollama and
`Qwen3VL-8B-Instruct-Q4_K_M.gguf` on llama.cpp. A name that fits several models is refused, because a wrong model
answers without a word.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from genseg_hub import dialects
from genseg_hub.errors import NotServedError
from genseg_hub.reasoners.server_errors import ServerErrors, import_openai, printable
from genseg_hub.reasoners.serving import checked_address, client_options

OLLAMA, LM_STUDIO, LLAMA_CPP = "Ollama", "LM Studio", "llama.cpp"
VLLM, SGLANG, OPENROUTER, UNKNOWN = "vLLM", "SGLang", "OpenRouter", "unknown"
ONE_BY_ONE = (OLLAMA, LM_STUDIO, LLAMA_CPP)  # servers that by default answer one request at a time, or a few
_OWNERS = {
    "library": OLLAMA,
    "organization_owner": LM_STUDIO,
    "llamacpp": LLAMA_CPP,
    "vllm": VLLM,
    "sglang": SGLANG,
}
_NAMES_SHOWN = 10
_HOW_TO_CHOOSE = "choose a model with --served-model NAME (in Python served_model=NAME)"
_LONGEST_NAME = 200  # characters that are compared
# Ends of a name that say how the weights are stored, not which they are.
_STORAGE = re.compile(
    r"[-_.:](gguf|mlx|latest|awq|gptq|bnb|unsloth|dwq|fp8|bf16|fp?(16|32)|nf4|nvfp4|mxfp[48]|int[48]|w\da\d{1,2}"
    r"|\d-?bit|(ud-)?i?q\d(_[a-z0-9]{1,3}){0,3})$"
)
_TUNING = re.compile(r"(?<![a-z])(instruct|thinking|chat|it)(?![a-z])")


@dataclass(frozen=True)
class ServedModel:
    """A model of a server's list.

    Attributes:
        name: as requests name it.
        root: path or id from which the server loaded the model; None if the list does not say.
        hub_id: its Hub id, in OpenRouter's list.
        vision: whether it takes images; None if the list does not say.
        server: the kind of server, "unknown" if the list does not tell.
    """

    name: str
    root: str | None = None
    hub_id: str | None = None
    vision: bool | None = None
    server: str = UNKNOWN

    @property
    def dialect(self) -> str | None:
        """Return the untuned dialect that Hub id, name or root tells; None for none."""
        names = [name for name in (self.hub_id, self.name, self.root) if name]
        told = (dialects.of_name(name) for name in (*map(_last_part, names), *names))
        return next(filter(None, told), None)

    @property
    def thinks(self) -> bool:
        """Return whether the name tells a model that thinks before each answer.

        Qwen3.5 and Ollama's plain qwen3-vl do.
        """
        name = f"{self.name} {self.root or ''} {self.hub_id or ''}".lower()
        plain = self.server == OLLAMA and "qwen3-vl" in name and "instruct" not in name
        return plain or "thinking" in name or re.search(r"qwen3[._]5", name) is not None


@dataclass(frozen=True)
class Choice:
    """A chosen model.

    Attributes:
        model: model of the server's list.
        known_as: the wanted name that led to the model; None if no name was wanted.
        why: reason of the choice, for people; "" if the name is exactly the server's.
        sure: whether the server itself says that the wanted name is this model's.
    """

    model: ServedModel
    known_as: str | None
    why: str = ""
    sure: bool = False


def list_models(address: str, timeout: float) -> list[ServedModel]:
    """Ask a server once for its models, without a key.

    Args:
        address: address of the server's API, such as "http://localhost:11434/v1".
        timeout: seconds to wait.

    Raises:
        ReasonerError: the server cannot be reached, wants a key or lists no models.
        ValueError: the text is no address.
    """
    openai = import_openai()
    address = checked_address(address)
    errors = ServerErrors(address, timeout, max_retries=0)
    try:
        http = openai.DefaultHttpxClient(**client_options(address))
        with openai.OpenAI(
            base_url=address, api_key="none", timeout=timeout, max_retries=0, http_client=http
        ) as client:
            return read_models(client.models.list(), errors)
    except Exception as error:  # servers, networks and proxies cause errors of any type
        raise errors.explained(error) from error


def read_models(page: Any, errors: ServerErrors) -> list[ServedModel]:
    """Read the answer to a request for the models.

    Args:
        page: as the openai client returns it; its fields may be of any type.
        errors: errors of the server.

    Raises:
        ReasonerError: it is no list of models.
    """
    try:
        rows = [] if page.data is None and page.object == "list" else page.data  # Ollama without a model
        fields = [row.to_dict(warnings=False) for row in rows]
        names = [fields_of_one["id"] for fields_of_one in fields]
        if not all(isinstance(name, str) and name for name in names):
            raise TypeError
    except (AttributeError, KeyError, TypeError):
        raise errors.error("does not list its models as OpenAI's API does; the address usually ends in /v1") from None
    kind = next(filter(None, map(_kind, fields)), UNKNOWN)
    capabilities = _capabilities(page)
    return [
        ServedModel(
            name,
            _text(one.get("root")),
            _text(one.get("hugging_face_id")),
            "multimodal" in capabilities[name] if name in capabilities else _vision(name, one),
            kind,
        )
        for name, one in zip(names, fields, strict=True)
    ]


def choose(models: Sequence[ServedModel], wanted: Sequence[str] | None) -> Choice:
    """Return the model that one of the wanted names means.

    A model is found by its exact name, then by its root, then by name or Hub id without regard to case. Next comes a
    name that differs in owner, storage and punctuation. The last try ignores "instruct" and "thinking" in the name. A
    thinking model is never taken for one that does not think.

    Args:
        models: models of one server.
        wanted: names of the same model; None for the only model that takes images.

    Raises:
        NotServedError: no model fits, or several do; the message is a predicate of the server.
    """
    if wanted is None:
        return _only(models)
    for name in wanted:
        for model in models:
            if model.name == name:
                _check_images(model)
                return Choice(model, name, sure=True)
    fits: list[tuple[Callable[[ServedModel, str], bool], str, bool]] = [
        (lambda model, name: model.root == name, "the server loaded it from there", True),
        (lambda model, name: model.name.lower() == name.lower(), "the same name in other letters", True),
        (lambda model, name: (model.hub_id or "").lower() == name.lower(), "the server names this Hub id", True),
        (lambda model, name: _is_near(model, name, _letters), "the same name but for owner and storage", False),
        (lambda model, name: _is_near(model, name, _stem), "the only model of this family and size", False),
    ]
    for fit, why, sure in fits:
        found = {model.name: (model, name) for name in reversed(wanted) for model in models if fit(model, name)}
        if len(found) > 1:
            raise NotServedError(f"has several models for {printable(wanted[0])}: {_listed(found)}; {_HOW_TO_CHOOSE}")
        for model, name in found.values():
            _check_images(model)
            return Choice(model, name, why, sure)
    known = _listed([model.name for model in models], wanted[0])
    raise NotServedError(f"does not serve {wanted[0]}, but {known}; {_advice(models, wanted[0])}")


def _last_part(name: str) -> str:
    """Return a name without its owner; the file's name for a path.

    The folders of a path do not count, because a folder may have another model's name.
    """
    return re.split(r"[/\\]", name)[-1]


def _check_images(model: ServedModel) -> None:
    """Raise NotServedError for a model that llama-server has without its vision tower.

    llama-server answers 500 to an image then, so that every expression would be sent five times. Lists of other servers
    are not trusted this far.
    """
    if model.server == LLAMA_CPP and model.vision is False:
        raise NotServedError(f"serves {printable(model.name)} without its vision tower; {_advice([model], model.name)}")


def means(model: ServedModel, names: Sequence[str]) -> bool:
    """Return whether one of the names means a model, see `choose`."""
    try:
        return choose([model], names).model is model
    except NotServedError:
        return False


def _only(models: Sequence[ServedModel]) -> Choice:
    seeing = [model for model in models if model.vision or (model.vision is None and model.dialect)]
    if len(seeing) == 1:
        return Choice(seeing[0], None, "the only vision model of the server")
    if len(models) == 1 and models[0].vision is not False:
        return Choice(models[0], None, "the only model of the server")
    if not models:
        raise NotServedError(f"serves nothing; {_advice(models, 'Qwen/Qwen3-VL-8B-Instruct')}")
    names = _listed(sorted((model.name for model in seeing or models), key=lambda name: not dialects.of_name(name)))
    raise NotServedError(f"serves {names}, and none was named; {_HOW_TO_CHOOSE}")


def _is_near(model: ServedModel, wanted: str, key: Callable[[str], str]) -> bool:
    # The name of a folder tells nothing, and a commit has no near names.
    if model.vision is False or wanted.startswith((".", "/", "~")) or "@" in wanted or not key(wanted):
        return False
    wish = ServedModel(wanted, server=model.server if ":" in wanted else UNKNOWN)
    names = filter(None, (model.name, model.root, model.hub_id))
    return model.thinks == wish.thinks and any(key(name) == key(wanted) for name in names)


def _letters(name: str) -> str:
    """Return the letters and digits of a name without owner and storage.

    A commit stays in the name.
    """
    name, shorter = "", _last_part(name.lower())[:_LONGEST_NAME]
    while name != shorter:
        name, shorter = shorter, _STORAGE.sub("", shorter)
    return re.sub(r"[^a-z0-9@]", "", name)


def _stem(name: str) -> str:
    return _letters(_TUNING.sub("", name.lower()))


def _listed(names: Sequence[str] | dict[str, Any], wanted: str | None = None) -> str:
    """Return at most ten names, the nearest to the wanted name."""
    names = list(names)
    shown = names[:_NAMES_SHOWN]
    if wanted is not None and len(names) > _NAMES_SHOWN:
        shown = difflib.get_close_matches(wanted.lower(), names, _NAMES_SHOWN, cutoff=0)
    rest = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return (", ".join(printable(name)[:100] for name in sorted(shown)) or "nothing") + rest


def _advice(models: Sequence[ServedModel], wanted: str) -> str:
    """Return how the kind of server gets the wanted model."""
    kind = models[0].server if models else UNKNOWN
    start = f"start it with `genseg serve {wanted}`"
    here = _ollama_name(wanted)
    advice = {
        OLLAMA: f"get it with `ollama pull {here}`" if here else "get it with `ollama pull`",
        LM_STUDIO: "load it in LM Studio",
        LLAMA_CPP: "start llama-server with its -m and --mmproj",
        OPENROUTER: "look for a name with image input on https://openrouter.ai/models",
    }.get(kind, start)
    return f"{advice}, or {_HOW_TO_CHOOSE}" if models else advice


def _ollama_name(wanted: str) -> str | None:
    """Return Ollama's name of a Qwen3-VL; None for unknown."""
    bare = wanted.partition("@")[0].split("/")[-1].lower()
    if ":" in bare:
        return bare
    size = re.fullmatch(r"qwen3-vl-(\d{1,3}b(-a\d{1,2}b)?-(instruct|thinking))", bare)
    return f"qwen3-vl:{size[1]}" if size else None


def _kind(fields: dict[str, Any]) -> str | None:
    owner = fields.get("owned_by")
    if owner is None and isinstance(fields.get("architecture"), dict):
        return OPENROUTER
    return _OWNERS.get(owner) if isinstance(owner, str) else None


def _vision(name: str, fields: dict[str, Any]) -> bool | None:
    """Tell from modalities, type or name whether a model takes images."""
    architecture = fields.get("architecture")
    modalities = architecture.get("input_modalities") if isinstance(architecture, dict) else None
    if isinstance(modalities, list):
        return "image" in modalities
    if fields.get("type") in ("vlm", "llm", "embeddings"):
        return fields["type"] == "vlm"
    return False if "embed" in name.lower() else None


def _capabilities(page: Any) -> dict[str, list]:
    """Return the capabilities of each model, by its name.

    llama-server lists capabilities under `models`, beside the usual list `data`.
    """
    listed = getattr(page, "models", None)
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    return {
        row["name"]: row["capabilities"]
        for row in rows
        if isinstance(row.get("name"), str) and isinstance(row.get("capabilities"), list)
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
