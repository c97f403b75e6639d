"""What looks like a key or a password is found in every form, and a model's own files hold none."""

import json

import pytest
import transformers
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.publishing import card, credentials, publish

SETTINGS = [
    *("password: hunter2", "password: 12345", "password: p\u00e4ss", "- password: abcd", "run: {password: hunter2}"),
    *('password: "correct horse"', "my_secret='s3cr3t!'", 'password="it\'s me"', "[db]\npassword = hunter2\n"),
    *('"password": "hunter2"', "{'password': 'x1y2'}", '"apiKey":"abcd"', '"clientSecret": "abcdefg"', "pwd: abcd"),
    *("password=hunter2", "passwd=abcd", "SECRET=abcd1234", "PASSWD=abcd\nX=1", "DB_PASSWORD=hunter", "api_key: abcd"),
    *("export WANDB_API_KEY=abcdef", "token: ab12", 'token = "abcd"', '"token": "abcdef"', "access_token=abc123"),
    *('"hub_token": "whatever"', '"auth": "me:pass1"', "auth: me1234", 'my_service_token: "aB3dE5fG7h9Jk"'),
    *("--password hunter2", "genseg-train --hub-token=ab12 x", "see https://h.org/x?token=ab12cd&y=1"),
    *("https://user:pw12@host/x", "redis://:abcde@host:1", "postgres://me:a:b@db"),
    r'{"text": "{\"password\": \"hunter2\"}"}',
    r'{"args": "first\npassword: hunter2\nlast"}',
]


@pytest.mark.parametrize("text", SETTINGS)
def test_a_short_password_is_found(text):
    assert credentials.found_in(text.encode())
    assert credentials.found_in(f'{{"a": 1}}\nmore: text\n{text}\nb: 2\n'.encode())


@pytest.mark.parametrize(
    "text",
    [
        *(
            "task-specific-configuration-of-a-model",
            "sk-learn",
            "AKIA",
            "hf_hub_download",
            "AIza",
            "git@github.com:a/x",
        ),
        *("https://host.org:8000/a@b", "https://user:password@host", "http://me:${PW}@host", "secretary: Anna"),
        *('"pad_token": "<|endoftext|>"', "token: <|im_end|>", '"pad_token": "[PAD]"', '"image_token": "IMAGE"'),
        *('"eos_token_id": 151645', "max_new_tokens: 4096", "token_type_ids: abcd1", '"tokenizer_class": "Qwen2"'),
        *('"mask_token": "mask"', '"password": 3502, "secret": 20474', "{%- set token = message.content %}"),
        *("secret: no", "password: null", "secret: true", 'auth: "basic"', "password: ***"),
        *(
            "password: ${DB_PASSWORD}",
            "api_key: $KEY",
            "password: <your password>",
            "api_key: YOUR_KEY",
            "token: sk-...",
        ),
        *(
            'api_key=os.environ["X"]',
            "f(token=token)",
            "f(x, token=hf_token)",
            "token=get_token()",
            "token: str = None",
        ),
        *("The password: see the wiki page", "run `hf auth login` or set HF_TOKEN anew", "Add `--token` or the like"),
        *(
            "--token TOKEN",
            "--password or --key",
            '"push_to_hub_token": "<PUSH_TO_HUB_TOKEN>"',
            "private_key: ~/key.pem",
        ),
    ],
)
def test_words_and_placeholders_are_no_keys(text):
    assert credentials.found_in(text.encode()) is None


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_files_of_a_checkpoint_hold_none(name):
    files = [file for file in EMBEDDED[name].rglob("*") if publish.is_published(file.relative_to(EMBEDDED[name]))]
    texts = [file for file in files if file.suffix != ".safetensors"]
    assert {"tokenizer_config.json", "tokenizer.json", "generation_config.json"} <= {file.name for file in texts}
    assert {file.name: credentials.found_in(file.read_bytes()) for file in texts} == {file.name: None for file in texts}
    assert credentials.found_in(str(card.card(EMBEDDED[name], "me/nano")).encode()) is None


def test_the_files_of_a_trainer_hold_none(tmp_path):
    state = transformers.TrainerState(log_history=[{"num_tokens": 4096.0, "completions/mean_terminated_length": 12.5}])
    state.save_to_json(str(tmp_path / "trainer_state.json"))
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True, hub_token="hunter2x")
    for text in ((tmp_path / "trainer_state.json").read_text(), json.dumps(arguments.to_dict()), str(arguments)):
        assert credentials.found_in(text.encode()) is None
