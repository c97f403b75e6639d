"""Find texts that look like a key or a token, so that no push publishes them."""

from __future__ import annotations

import re

# Kind of secret -> its beginning and continuation, as its maker or GitHub's secret scanning documents them.
_KINDS = {
    "a token of the Hub": r"hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a key of AWS": r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    "a token of GitHub": r"gh[opsur]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,}",
    "a token of GitLab": r"glpat-[A-Za-z0-9_-]{20,}",
    "a key of Google": r"AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{28}",
    "a token of Slack": r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    "a key of NVIDIA": r"nvapi-[A-Za-z0-9_-]{40,}",
    "a key of Groq": r"gsk_[A-Za-z0-9]{40,}",
    "a key of Replicate": r"r8_[A-Za-z0-9]{30,}",
    "a key of Stripe": r"[rs]k_live_[A-Za-z0-9]{20,}",
    "a token of PyPI": r"pypi-[A-Za-z0-9_-]{50,}",
    "a token of npm": r"npm_[A-Za-z0-9]{36,}",
    # Words with hyphens look alike, so a known beginning, one long word, or a digit and a capital letter are asked for.
    "a key of OpenAI or Anthropic": (
        r"sk-(?:(?:proj|svcacct|admin|ant|or)-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{32,}"
        r"|(?=[A-Za-z0-9_-]{0,60}[0-9])(?=[A-Za-z0-9_-]{0,60}[A-Z])[A-Za-z0-9_-]{20,})"
    ),
    "a JSON Web Token": r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    # An assignment in JSON, in YAML or on a command line, such as `wandb_api_key: 0123...`.
    "a key": (
        r"[A-Za-z0-9_.-]{0,40}?(?i:api[_-]?key|access[_-]?key|secret(?:[_-]?key)?|password|passwd|auth[_-]?token|bearer)"
        r"[\\\"']{0,4}\s{0,20}[:= ]\s{0,20}[\\\"'\[]{0,4}"
        r"(?=[A-Za-z0-9_/+-]{0,60}[0-9])(?=[A-Za-z0-9_/+-]{0,60}[A-Za-z])[A-Za-z0-9_/+-]{20,}"
    ),
}
_PATTERNS = {what: re.compile(rf"(?<![A-Za-z0-9]){pattern}".encode()) for what, pattern in _KINDS.items()}
# A setting: its name, and a value in quotes, or a bare one as in YAML, .env and INI files, queries and options.
_SETTING = re.compile(
    rb"""(?P<name>(?i:pass(?:word|wd|phrase|code)|pwd|secret|(?:api|access|account|auth|private|client|secret)[_-]?key
        |credentials?|token|auth(?:orization)?))
    (?:
        (?P<quoted>\\{0,3}["'])?[^\S\r\n]{0,20}(?P<sign>:|=>?)[^\S\r\n]{0,20}
        (?:
            \\{0,3}(?P<mark>["'])(?P<text>(?:(?!(?P=mark))[^\\\r\n]){4,200})\\{0,3}(?P=mark)
            |(?P<bare>[^\s"'`,;()\[\]{}<>&|\\]{4,200})
            (?:[^\S\r\n]{0,20}(?=[\r\n\#,}"'`\\&|]|\Z)|(?P<more>[^\S\r\n]))
        )
        |[^\S\r\n]{1,3}(?P<option>[^\s"'`,;()\[\]{}<>&|\\-][^\s"'`,;()\[\]{}<>&|\\]{3,200})(?=[\s"'`\\]|\Z)
    )""",
    re.VERBOSE,
)
_ADDRESS = re.compile(rb"[A-Za-z0-9+.-]://[^\s/:@\"'<>]{0,100}:(?P<text>[^\s/@\"'<>]{3,100})@[A-Za-z0-9\[]")
# The text before a name: where a line or an entry begins, and the first words of the name.
_BEGINS = re.compile(r"(?:[\r\n{,\"'`]|\\n)[\s-]*(?:export\s+)?[\w.-]{0,40}$")
_OWNERS = re.compile(
    r"[^A-Za-z0-9_.-]$|(?:^|[^A-Za-z0-9])(?:access|api|auth|bearer|bot|deploy|git(?:hub|lab)|hf|hub|hugging_?face|id|login"
    r"|personal|private|refresh|secret|security|service|session|slack|user|wandb)[_-]?$",
    re.IGNORECASE,
)
_LONG = 12  # characters of a value beside a name that can mean something else
# Values that stand for another one, or for none: words, variables, special tokens of a model.
_STANDS_FOR = re.compile(
    r"<.*>|\[.*\]|\(.*\)|\{.*\}|.*\{\{.*|\$\{.*|\$[A-Za-z_]\w*|%\w+%"
    r"|.*(?:\.\.\.|\N{HORIZONTAL ELLIPSIS})|(?:~|\.\.?)/.*|\W+|x+|(?-i:[A-Z]+(?:_[A-Z]+)*)"
    r"|(?:your|the|env|os)[\s_.:-].*"
    r"|(?:null|none|true|false|auto|basic|bearer|default|string|text|bytes|required|optional|needed|unknown|missing"
    r"|hidden|redacted|masked|removed|example|placeholder|dummy|empty|unset|not[\s_-]?set|change[_-]?me|user|username"
    r"|pass|password|passwd|pwd|passphrase|secret|token|key|api[_-]?key)\d?",
    re.DOTALL | re.IGNORECASE,
)


def found_in(content: bytes) -> str | None:
    """Return the kind of secret that a file seems to hold, such as "a key of AWS".

    Return None if the file seems to hold no secret.
    """
    what = next((what for what, pattern in _PATTERNS.items() if pattern.search(content)), None)
    if what is not None:
        return what
    if any(not _STANDS_FOR.fullmatch(_decoded(match["text"])) for match in _ADDRESS.finditer(content)):
        return "a password in an address"
    name = next((_decoded(match["name"]) for match in _SETTING.finditer(content) if _is_secret(content, match)), None)
    return None if name is None else f"a value for {name!r}"


def _is_secret(content: bytes, match: re.Match[bytes]) -> bool:
    """Return whether a setting has a value, and the name of a credential."""
    before = "\n" + _decoded(content[max(0, match.start() - 60) : match.start()])
    value = _decoded(match["text"] or match["bare"] or match["option"])
    if _STANDS_FOR.fullmatch(value):
        return False
    has_digit = any(map(str.isdigit, value))
    if match["option"] is not None:  # after a word of a sentence, any word may come
        return has_digit and re.search(r"--[\w-]*$", before) is not None
    if match["bare"] is not None and match["quoted"]:  # JSON: a number, as in a vocabulary
        return False
    if match["bare"] is not None and match["sign"] == b":" and (match["more"] or not _BEGINS.search(before)):
        return False  # a sentence
    if match["name"].lower() not in (b"token", b"auth", b"authorization"):
        return True
    if _OWNERS.search(before):
        return has_digit or match["bare"] is None
    return has_digit and len(value) >= _LONG and not value.isdecimal()  # a model has tokens, too, which are words


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")
