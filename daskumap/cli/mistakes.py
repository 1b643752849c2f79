"""What is said of a command line that cannot be read: what it should be, and the nearest names."""

from __future__ import annotations

import re
from typing import Any

from daskumap.cli.defaults import did_you_mean
from daskumap.cli.help import usage_of


def explain(mistake: Any) -> str:
    """Return the usage and what is wrong; of a command without arguments, its help."""
    text, ctx = mistake.format_message(), getattr(mistake, "ctx", None)
    if ctx is None or text.startswith("usage: "):
        return str(text)
    said = re.sub(r" ?\(Possible options: .*\)$|\. Did you mean .*\?$", "", text).replace("Value error, ", "")
    said = re.sub(r" \(env var: '\w+'\)", "", said)
    lines = [usage_of(ctx.command, ctx), f"daskumap: {said.rstrip('.')}.{_nearest(text, ctx)}"]
    return "\n".join([*lines, f"`{ctx.command_path} --help` shows all."])


def _nearest(text: str, ctx: Any) -> str:
    if found := re.match(r"No such command '([^']*)'", text):
        return did_you_mean(found[1], ctx.command.list_commands(ctx))
    if found := re.match(r"No such option: (\S+)", text):
        options = [
            opt for option in ctx.command.get_params(ctx) for opt in option.opts + option.secondary_opts
        ]
        return did_you_mean(found[1], [opt for opt in options if opt.startswith("--")])
    if found := re.search(r"'([^']*)' is not one of (.*)", text):
        return did_you_mean(found[1], re.findall(r"'(.*?)'", found[2]))
    return ""
