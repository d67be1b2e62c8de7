"""A real ComfyUI on the CPU with LoRA Loom in its custom_nodes, and what a test asks of it over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACK = "lora-loom"
STARTS_WITHIN, ENDS_WITHIN = 300, 900
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def install_pack(base: Path) -> Path:
    """The files as `git clone` would lay them, with this checkout's prepared engine."""
    pack = base / "custom_nodes" / PACK
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/")):
            (pack / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, pack / name)
    if (ROOT / ".engine").is_dir():
        (pack / ".engine").symlink_to(ROOT / ".engine")
    return pack


@dataclass
class Server:
    """A running ComfyUI: its base directory, address, process and log."""

    base: Path
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, folder: Path, python: str, base: Path) -> Server:
        port, log = free_port(), base / "server.log"
        options = ["--cpu", "--disable-auto-launch", "--disable-api-nodes", "--port", str(port)]
        front = os.environ.get("COMFYUI_FRONTEND")
        options += ["--front-end-root", front] if front else []
        command = [python, "main.py", *options, "--base-directory", str(base)]
        command += ["--database-url", f"sqlite:///{base / 'comfy.db'}"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        with open(log, "wb") as out:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT)
        server = cls(base, port, process, log)
        server.wait_until_ready()
        return server

    def wait_until_ready(self) -> None:
        end = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(1)
        raise AssertionError(f"ComfyUI did not start:\n{self.text()[-4000:]}")

    def text(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, data: Any = None) -> Any:
        body, kind = json.dumps(data or {}).encode(), {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, kind)
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            return json.loads(error.read() or b"{}")

    def node(self, kind: str, **given: Any) -> dict[str, Any]:
        """A node of a prompt with the defaults of its widgets."""
        values = {}
        for name, type_, options in inputs_of(self.get(f"/object_info/{kind}")[kind]):
            if type_ in WIDGETS and not options.get("forceInput"):
                values[name] = options.get("default", next(iter(options.get("options") or [""]), ""))
        return {"class_type": kind, "inputs": {**values, **given}}

    def queue(self, prompt: dict[str, Any]) -> str:
        answer = self.post("/prompt", {"prompt": prompt, "extra_data": {"extra_pnginfo": {"workflow": {"nodes": []}}}})
        assert "prompt_id" in answer, json.dumps(answer, indent=1)[:4000]
        return answer["prompt_id"]

    def wait(self, id: str) -> dict[str, Any]:
        end = time.monotonic() + ENDS_WITHIN
        while time.monotonic() < end:
            found = self.get(f"/history/{id}")
            if id in found:
                return found[id]
            time.sleep(0.3)
        raise AssertionError(f"The prompt did not end:\n{self.text()[-4000:]}")

    def run(self, prompt: dict[str, Any]) -> dict[str, Any]:
        """Outputs by node. Fails with the node's message."""
        done = self.wait(self.queue(prompt))
        assert done["status"]["status_str"] == "success", messages(done)
        return done["outputs"]

    def picture(self, shown: dict[str, str]) -> Path:
        return self.base / shown["type"] / shown["subfolder"] / shown["filename"]

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def messages(done: dict[str, Any]) -> dict[str, str]:
    """Kind of a message -> what it says."""
    return {kind: str(said.get("exception_message", "")) for kind, said in done["status"]["messages"]}


def inputs_of(info: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(name, type, options) in the page's order."""
    found = []
    for part in ("required", "optional"):
        for name, said in info["input"].get(part, {}).items():
            kind, options = said[0], dict(said[1]) if len(said) > 1 else {}
            found.append(
                (name, "COMBO", {**options, "options": kind}) if isinstance(kind, list) else (name, kind, options)
            )
    return found


def as_prompt(workflow: dict[str, Any], infos: dict[str, Any]) -> dict[str, Any]:
    """A workflow of the page as the page queues it."""
    links = {link[0]: link for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] == "Note":
            continue
        values, inputs = list(node["widgets_values"]), {}
        for name, kind, options in inputs_of(infos[node["type"]]):
            if kind in WIDGETS and not options.get("forceInput"):
                inputs[name] = values.pop(0)
                if options.get("control_after_generate"):
                    values.pop(0)
        assert not values, f"{node['type']} has {len(values)} values too many"
        for place in node["inputs"]:
            if place["link"] is not None:
                _, source, output, *_ = links[place["link"]]
                inputs[place["name"]] = [str(source), output]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt
