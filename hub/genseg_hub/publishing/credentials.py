"""Find what looks like a key or a token, so that no push publishes it."""

from __future__ import annotations

import re

# What it is -> how it begins and goes on, as its maker documents it or as GitHub's secret scanning looks for it.
_PATTERNS = {
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
    "a password in an address": r"[a-z][a-z0-9+.-]{2,20}://[^\s/:@\"'<>]{1,100}:[^\s/:@\"'<>$*{]{3,100}@[A-Za-z0-9.-]+",
    # An assignment in JSON, in YAML or on a command line, such as `wandb_api_key: 0123...`.
    "a key": (
        r"[A-Za-z0-9_.-]{0,40}?(?i:api[_-]?key|access[_-]?key|secret(?:[_-]?key)?|password|passwd|auth[_-]?token|bearer)"
        r"[\\\"']{0,4}\s{0,20}[:= ]\s{0,20}[\\\"'\[]{0,4}"
        r"(?=[A-Za-z0-9_/+-]{0,60}[0-9])(?=[A-Za-z0-9_/+-]{0,60}[A-Za-z])[A-Za-z0-9_/+-]{20,}"
    ),
}
_ANY = re.compile(
    "|".join(f"(?P<p{place}>(?<![A-Za-z0-9]){pattern})" for place, pattern in enumerate(_PATTERNS.values())).encode()
)


def found_in(content: bytes) -> str | None:
    """Return what kind of secret a file seems to hold, such as "a key of AWS"; None for none."""
    match = _ANY.search(content)
    if match is None or match.lastgroup is None:
        return None
    return list(_PATTERNS)[int(match.lastgroup.removeprefix("p"))]
