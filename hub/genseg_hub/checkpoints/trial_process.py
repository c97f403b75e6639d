"""Process that tries a stranger's chat templates and tokenizer.

`trial` starts this process. The process reads its task as JSON from its input, and limits itself before it begins. It
writes the name of each part that it begins, and "done". A template that raises an error is no danger: loading the
checkpoint gives the error.
"""

import json
import sys
from importlib import import_module
from importlib.util import find_spec

QUESTION = "the person on the left"
# Long words, runs of spaces and changes of kind are what slow patterns of a tokenizer stumble over.
TEXTS = ("a" * 2000, " " * 2000, "a1 " * 700, "\n \n" * 700, "!?" * 1000)


def main() -> None:
    """Try the files that the input names."""
    work = json.load(sys.stdin)
    if find_spec("resource"):  # Windows has the time limit of `trial` alone
        resource = import_module("resource")
        resource.setrlimit(resource.RLIMIT_AS, (work["bytes"],) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (work["seconds"], work["seconds"] + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prompts = []
    for template in work["templates"]:
        print("chat template", flush=True)
        prompts.append(_render(template))
        if len(prompts[-1]) > work["characters"]:
            print(f"{len(prompts[-1]):,} characters", flush=True)
            return
    if work["tokenizer"]:
        print("tokenizer", flush=True)
        _tokenize(work["tokenizer"], [*prompts, *TEXTS])
    print("done", flush=True)


def _render(template: str) -> str:
    """Return the prompt of a question, nearly as Transformers renders it.

    An error gives "".
    """
    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """Transformers' tag around the model's words."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser):
            parser.stream.skip(1)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message):
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value, *_, **__: json.dumps(value)
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: form}
    chat = [
        {"role": "system", "content": [{"type": "text", "text": "You segment images."}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]},
    ]
    try:
        return environment.from_string(template).render(
            messages=chat, add_generation_prompt=True, tools=None, documents=None, bos_token="", eos_token=""
        )
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  whatever a template raises
        return ""


def _tokenize(file: str, texts: list) -> None:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(file)
        for text in texts:
            tokenizer.encode(text)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  a damaged file, of which loading the checkpoint tells
        return


if __name__ == "__main__":
    main()
