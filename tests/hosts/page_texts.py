"""The texts of the A1111 page: of its components, of what handlers and the script write, and of the settings."""

import ast
import json
import re
from html.parser import HTMLParser

from fake_a1111 import ROOT
from lora_loom_a1111 import settings_page
from lora_loom_a1111.widgets import group_labels

from lora_core import host_names
from lora_core.run import RUNNERS
from lora_core.settings import describe

SOURCES = sorted((ROOT / "a1111_extension").glob("*.py"))
SCRIPT = (ROOT / "javascript" / "lora_loom.js").read_text("utf-8")
LITERALS = set(re.findall(r'"([^"\n]*)"', SCRIPT))
SAYING = ("tab_", "cards")
SAME = {"Alpha", "Beta 1", "Beta 2", "Clip skip", "Eta", "Eta noise seed delta", "LoCon.", "LoRA", "LoRA + LoRA", "VAE"}
SAME |= {"Hires. fix", "Inpaint", "Min-SNR gamma", "Name", "Normal", "Prompt", "Prompts", "Sampler", "Seed", "Seeds"}
SAME |= {"Tags", "Training", "Zero terminal SNR", "3. Start", "my_lora_converted", "my_result"}
UNSEEN = "loom-hidden"
UNSAID = {"Masked area padding", "Take from "}  # a key of parameters, a part of a button's text
GAP = "\0"


def tables():
    """{"de_DE": {English: German}, ...}"""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in (ROOT / "localizations").glob("*.json")}


def names():
    """What stays as it is: tokens of the declarations and of the settings, A1111's samplers and schedules."""
    tokens = {choice for s in settings() for choice in s.choices or ()}
    tokens |= {choice for option in settings_page.OPTIONS for choice in option.choices or ()}
    return SAME | tokens | {named.a1111 for named in (*host_names.SAMPLERS, *host_names.SCHEDULES)}


def settings():
    return [s.declaration for runner in RUNNERS.values() for s in describe(runner.job)]


class Words(HTMLParser):
    """Texts and hints of HTML as A1111 looks them up."""

    def __init__(self, html):
        super().__init__()
        self.found = set()
        self.feed(html)
        self.close()

    def handle_data(self, data):
        self.found.add(data.strip())

    def handle_starttag(self, tag, attrs):
        self.found |= {(value or "").strip() for name, value in attrs if name in ("title", "placeholder", "data-empty")}


def spoken(texts):
    """Those with a word, without those that a value goes into and those of one model or LoRA."""
    return {text for text in texts if re.search(r"[A-Za-z]{2}", text) and GAP not in text}


def of_page(blocks, host):
    """Labels, helps, placeholders, buttons, choices, and the texts of HTML."""
    found = set()
    for component in blocks.blocks.values():
        config = component.get_config()
        kind, value = component.get_block_name(), config.get("value")
        if UNSEEN in str(config.get("elem_classes", "")):
            continue
        found |= {config.get(key) or "" for key in ("label", "info", "placeholder")}
        found |= {value} if kind == "button" else Words(value).found if kind == "html" and value else set()
        choices = config.get("choices") or ()
        found |= {choice if isinstance(choice, str) else choice[0] for choice in choices}
    titles = {choice.title for choice in (*host.checkpoints(), *host.loras())}
    return {text for text in spoken(found) - titles if not re.fullmatch(r"LoRA \d+", text)}


def of_settings():
    """A1111 puts a help in brackets."""
    return {text for o in settings_page.OPTIONS for text in (o.label, f"({o.help})" if o.help else "") if text}


def constants(path):
    """(text, whether it is a part) of every text in a module that is no docstring; values leave a gap."""
    tree = ast.parse(path.read_text("utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(v) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for v in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told | parts:
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(v.value if isinstance(v, ast.Constant) else GAP for v in node.values)


def of_handlers():
    """Sentences in the tabs' code, and what stands between the marks of their HTML."""
    texts = [text for path in SOURCES if path.name.startswith(SAYING) for text in constants(path)]
    sentences = {text for text in texts if re.match(r"[A-Z]", text) and " " in text and "<" not in text}
    return spoken(sentences.union(*(Words(text).found for text in texts if re.match(r"<\w+[ >]", text)))) - UNSAID


def of_script():
    """Words in the page's script."""
    words = {text for text in LITERALS if re.fullmatch(r"[A-Z][a-z]+(-[a-z]+)?( .*)?", text)}
    return (words | set(re.findall(r'item\("\w+", "([^"]+)"', SCRIPT))) - {"Escape"}


def anywhere():
    """Every text of our page's code, of the declarations and of the tables that it shows."""
    found = {text for path in SOURCES for text in constants(path)} | LITERALS
    found |= {text for s in settings() for text in (s.label, s.help)} | of_settings() | of_handlers()
    shown = (host_names.RESIZE_MODE, host_names.INPAINT_AREA, host_names.MASK_MODE)
    return found.union(*(table.values() for table in shown), *(group_labels(r.job).values() for r in RUNNERS.values()))
