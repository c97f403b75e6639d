"""Which of a server's models a name means, and what a server is told to do that has none."""

import copy
from types import SimpleNamespace

import pytest
from genseg_hub.checkpoints.served import of_served_model
from genseg_hub.errors import NotServedError, ReasonerError
from genseg_hub.options import HubOptions
from genseg_hub.reasoners.served_models import ServedModel, choose, list_models, read_models
from genseg_hub.reasoners.server_errors import ServerErrors

from tests.helpers.chat_server import said, serving
from tests.helpers.simulated_servers import LISTS

INSTRUCT = "Qwen/Qwen3-VL-8B-Instruct"
THINKING = "Qwen/Qwen3-VL-8B-Thinking"
ERRORS = ServerErrors("http://host/v1", 1.0, 0)


def served(*names, server="unknown", **more) -> list[ServedModel]:
    return [ServedModel(name, server=server, **more) for name in names]


@pytest.mark.parametrize(
    ("kind", "server", "first"),
    [
        ("ollama", "Ollama", ServedModel("qwen3-vl:8b-instruct", server="Ollama")),
        ("lmstudio", "LM Studio", ServedModel("qwen/qwen3-vl-8b", server="LM Studio")),
        ("llama.cpp", "llama.cpp", ServedModel("Qwen3VL-8B-Instruct-Q4_K_M.gguf", None, None, True, "llama.cpp")),
        ("mlx-vlm", "unknown", ServedModel("mlx-community/Qwen3-VL-8B-Instruct-4bit")),
        (
            "openrouter",
            "OpenRouter",
            ServedModel("qwen/qwen3-vl-8b-instruct", None, INSTRUCT, True, "OpenRouter"),
        ),
        ("vllm", "vLLM", ServedModel("served", "/weights/nano", None, None, "vLLM")),
    ],
)
def test_the_lists_of_servers_are_read(kind, server, first):
    with serving(lambda request: said("")) as started:
        started.models = (200, {}, LISTS[kind])
        models = list_models(started.url, 3.0)
    assert models[0] == first
    assert {model.server for model in models} == {server}
    assert [model.vision for model in models if "embed" in model.name] == [False] * sum(
        "embed" in model.name for model in models
    )
    assert started.keys == []


@pytest.mark.parametrize("kind", ["ollama", "lmstudio", "llama.cpp", "mlx-vlm", "openrouter"])
def test_the_checkpoint_of_the_hub_is_found_on_each_server(kind):
    with serving(lambda request: said("")) as started:
        started.models = (200, {}, LISTS[kind])
        choice = choose(list_models(started.url, 3.0), (f"{INSTRUCT}@{'a' * 40}", INSTRUCT, "/cache/of/it"))
    assert choice.model.name == LISTS[kind]["data"][0]["id"]
    assert choice.known_as == INSTRUCT
    assert choice.why


@pytest.mark.parametrize(
    ("wanted", "names", "found"),
    [
        (INSTRUCT, ["qwen3-vl:8b", "qwen3-vl:8b-instruct"], "qwen3-vl:8b-instruct"),
        (INSTRUCT, ["qwen/qwen3-vl-8b", "qwen3-vl:8b-instruct-q4_K_M"], "qwen3-vl:8b-instruct-q4_K_M"),
        (INSTRUCT, ["qwen/qwen3-vl-8b", "qwen/qwen3-vl-4b", "qwen/qwen3-vl-8b-thinking"], "qwen/qwen3-vl-8b"),
        (INSTRUCT, ["unsloth/Qwen3-VL-8B-Instruct-GGUF:UD-Q4_K_XL"], "unsloth/Qwen3-VL-8B-Instruct-GGUF:UD-Q4_K_XL"),
        (INSTRUCT, [r"C:\models\Qwen3VL-8B-Instruct-F16.gguf"], r"C:\models\Qwen3VL-8B-Instruct-F16.gguf"),
        (INSTRUCT, ["QWEN/qwen3-vl-8b-instruct", "other/qwen3-vl-8b-instruct"], "QWEN/qwen3-vl-8b-instruct"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", ["qwen2.5vl:3b", "qwen2.5vl:7b"], "qwen2.5vl:7b"),
        (THINKING, ["qwen/qwen3-vl-8b", "qwen/qwen3-vl-8b-thinking"], "qwen/qwen3-vl-8b-thinking"),
        ("qwen3-vl", ["qwen3-vl:latest", "qwen3-vl:2b"], "qwen3-vl:latest"),
    ],
)
def test_near_names_are_found(wanted, names, found):
    assert choose(served(*names), [wanted]).model.name == found


def test_exact_names_come_first_then_where_a_model_was_loaded_from():
    models = [ServedModel("a", root="b"), ServedModel("b", root="c"), ServedModel("d", hub_id="Me/C")]
    assert choose(models, ["b"]).model.name == "b"
    assert choose(models, ["b"]).why == ""
    assert choose(models, ["x", "c"]).model.name == "b"
    assert choose(models, ["x", "c"]).known_as == "c"
    assert choose(models, ["me/c"]).model.name == "d"


@pytest.mark.parametrize(
    ("wanted", "models"),
    [
        (INSTRUCT, served("qwen/qwen3-vl-8b-thinking")),
        (INSTRUCT, served("qwen3-vl:8b", server="Ollama")),  # Ollama's plain tag thinks
        (THINKING, served("qwen/qwen3-vl-8b")),
        (INSTRUCT, served("qwen/qwen3-vl-4b", "qwen3-8b", "qwen3-vl")),
        (INSTRUCT, served("qwen/qwen3-vl-8b-instruct-gguf", vision=False)),
        (INSTRUCT, served(f"{INSTRUCT}@{'b' * 40}")),
        (f"{INSTRUCT}@{'a' * 40}", served(f"other/Qwen3-VL-8B-Instruct@{'a' * 40}")),
        ("/runs/best", served("someone/best")),
        (".gguf", served("-instruct")),
    ],
)
def test_another_model_is_never_taken(wanted, models):
    with pytest.raises(NotServedError, match="does not serve"):
        choose(models, [wanted])


def test_a_name_that_fits_several_models_is_refused():
    names = ["qwen3-vl:8b-instruct-q4_K_M", "qwen3-vl:8b-instruct-q8_0", "qwen3-vl:4b-instruct"]
    with pytest.raises(NotServedError) as refusal:
        choose(served(*names), [INSTRUCT])
    assert str(refusal.value) == (
        f"has several models for {INSTRUCT}: qwen3-vl:8b-instruct-q4_K_M, qwen3-vl:8b-instruct-q8_0; "
        "choose a model with --served-model NAME (in Python served_model=NAME)"
    )
    with pytest.raises(NotServedError, match="several"):
        choose(served("a/qwen3-vl-8b", "b/qwen3-vl-8b"), [INSTRUCT])


@pytest.mark.parametrize(
    ("models", "found", "why"),
    [
        (served("llama3:8b", "qwen3-vl:8b-instruct", "nomic-embed-text:latest"), "qwen3-vl:8b-instruct", "vision"),
        ([ServedModel("a", vision=True), ServedModel("qwen3-vl-8b", vision=False)], "a", "vision"),
        (served("anything"), "anything", "the only model of the server"),
    ],
)
def test_without_a_name_the_only_model_that_takes_images_is_chosen(models, found, why):
    choice = choose(models, None)
    assert choice.model.name == found
    assert choice.known_as is None
    assert why in choice.why


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (
            served("qwen3-vl:8b", "qwen3-vl:4b"),
            "serves qwen3-vl:4b, qwen3-vl:8b, and none was named; choose a model with",
        ),
        (served("a", "b"), "serves a, b, and none was named"),
        (served("a", vision=False), "serves a, and none was named"),
        (served(*map(str, range(300))), " and 290 more, and none was named"),
        ([], "serves nothing; start it with `genseg serve Qwen/Qwen3-VL-8B-Instruct`"),
    ],
)
def test_without_a_name_nothing_is_guessed(models, message):
    with pytest.raises(NotServedError, match="serves") as refusal:
        choose(models, None)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("server", "wanted", "advice"),
    [
        ("Ollama", INSTRUCT, "get it with `ollama pull qwen3-vl:8b-instruct`"),
        ("Ollama", "Qwen/Qwen3-VL-30B-A3B-Thinking", "`ollama pull qwen3-vl:30b-a3b-thinking`"),
        ("Ollama", "qwen2.5vl:7b", "`ollama pull qwen2.5vl:7b`"),
        ("LM Studio", INSTRUCT, "load it in LM Studio"),
        ("llama.cpp", INSTRUCT, "start llama-server with its -m and --mmproj"),
        ("vLLM", INSTRUCT, f"start it with `genseg serve {INSTRUCT}`"),
        ("SGLang", INSTRUCT, f"start it with `genseg serve {INSTRUCT}`"),
        ("OpenRouter", INSTRUCT, "look for a name with image input"),
        ("unknown", INSTRUCT, f"start it with `genseg serve {INSTRUCT}`, or choose a model with --served-model NAME"),
    ],
)
def test_the_advice_is_that_of_the_server(server, wanted, advice):
    with pytest.raises(NotServedError) as refusal:
        choose(served("llama3", server=server), [wanted])
    assert str(refusal.value).startswith(f"does not serve {wanted}, but llama3; ")
    assert advice in str(refusal.value)


def test_of_a_long_list_the_nearest_names_are_shown():
    names = [f"maker/model-{number}" for number in range(300)] + ["qwen/qwen3-vl-30b-a3b-instruct"]
    with pytest.raises(NotServedError) as refusal:
        choose(served(*names), [INSTRUCT])
    assert "qwen/qwen3-vl-30b-a3b-instruct" in str(refusal.value)
    assert "and 291 more" in str(refusal.value)
    assert len(str(refusal.value)) < 500


def test_hostile_lists_do_no_harm():
    names = ["\x1b[2Jqwen3-vl", "y" * 10_000, "-q4" * 10_000]
    with pytest.raises(NotServedError) as refusal:
        choose(served(*names), [INSTRUCT])
    assert "\x1b" not in str(refusal.value)
    assert len(str(refusal.value)) < 800
    for data in (None, 7, "text", ["text"], [None], [{}], [{"id": 1}], [{"id": ""}], [{"id": {"a": 1}}]):
        with serving(lambda request: said("")) as started:
            started.models = (200, {}, {"data": data})
            with pytest.raises(ReasonerError, match="does not list its models"):
                list_models(started.url, 3.0)
    odd = {"id": "a", "root": 1, "hugging_face_id": [], "owned_by": {}, "architecture": {"input_modalities": 3}}
    with serving(lambda request: said("")) as started:
        started.models = (200, {}, {"data": [odd, {"id": "b", "architecture": "x", "type": []}]})
        assert list_models(started.url, 3.0) == [ServedModel("a"), ServedModel("b")]


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/models/qwen2.5-vl/Qwen3VL-8B-Instruct-Q4_K_M.gguf", "qwen3_vl"),
        (r"C:\internvl\Qwen3VL-8B.gguf", "qwen3_vl"),
        ("/models/qwen2.5-vl/model-q4_0.gguf", "qwen2_5_vl"),
    ],
)
def test_a_file_tells_its_dialect_before_its_folders(path, dialect):
    assert ServedModel(path).dialect == dialect
    assert of_served_model(path, (), "nano", None, HubOptions()).dialect == dialect


def test_llama_cpp_without_a_vision_tower_is_refused():
    listed = copy.deepcopy(LISTS["llama.cpp"])
    name = listed["data"][0]["id"]
    listed["models"][0]["capabilities"] = ["completion"]
    with serving(lambda request: said("")) as started:
        started.models = (200, {}, listed)
        models = list_models(started.url, 3.0)
    assert models[0].vision is False
    for wanted in (name, name.upper()):
        with pytest.raises(
            NotServedError, match=r"without its vision tower; start llama-server with its -m and --mmproj"
        ):
            choose(models, [wanted])
    with pytest.raises(NotServedError, match="none was named"):
        choose(models, None)


@pytest.mark.parametrize("odd", [None, 7, "x", [None, 7, {}, {"name": 1, "capabilities": []}, {"name": "a"}]])
def test_an_odd_second_list_tells_nothing(odd):
    page = SimpleNamespace(object="list", models=odd, data=[SimpleNamespace(to_dict=lambda warnings: {"id": "a"})])
    assert read_models(page, ERRORS) == [ServedModel("a")]


def test_ollama_without_a_model_lists_nothing():
    assert read_models(SimpleNamespace(object="list", data=None), ERRORS) == []


def test_a_list_that_cannot_be_had_is_an_error():
    with pytest.raises(ReasonerError, match=r"127.0.0.1:1/v1 cannot be reached .* asked once"):
        list_models("http://127.0.0.1:1/v1", 1.0)
    with pytest.raises(ValueError, match="no address of a server"):
        list_models("localhost:11434", 1.0)
