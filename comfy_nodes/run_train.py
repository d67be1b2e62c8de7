"""Train LoRA at work: the job from the widgets, the results for the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_core.architecture import architecture_of
from lora_core.chart import LossCurve, loss_chart
from lora_core.goals import EFFORTS, FAMILIES, GOALS, Wish, explained, on_top, settings_for
from lora_core.jobs import TrainJob
from lora_core.pictures import SUFFIXES
from lora_core.settings import replace_by_name

from . import host, places
from .dataset import Pictures
from .declare import Context, Options, Result
from .pictures import image_of, read_picture
from .train import CUSTOM, OWN, option_groups
from .widgets import chosen_file, setting, settings, value_of, values_of
from .work import Done, perform

SHOWN = 16


def train_job(values: dict[str, Any]) -> TrainJob:
    """The job of a Train node. Raises ConfigError."""
    base, pictures = chosen_file("checkpoints", values["base"]), values["dataset"]
    chosen = wished(values, base, pictures) | pictures.values
    size = values.get("resolution")
    chosen |= {"width": size, "height": size} if size else {}
    connected = [values.get(f"options_{name}") or Options() for name, _, _ in option_groups()]
    options = {name: value for one in connected for name, value in one.values.items()}
    chosen = on_top(chosen, options)[0] if "rank" in chosen else chosen | options
    chosen |= {"time_budget": budget} if (budget := values.get("time_budget")) else {}
    trigger = values.get("trigger", "").strip()
    prompts = value_of(setting(TrainJob, "preview_prompts"), values.get("preview_prompts", ""))
    chosen |= {"trigger": trigger, "preview_prompts": prompts or ((trigger,) if trigger else ())}
    chosen |= values_of([setting(TrainJob, name) for name in ("name", "seed", *OWN)], values)
    chosen["base_loras"] = tuple(f"{use.path} = {use.strength:g}" for use in values.get("base_loras") or ())
    name = str(chosen["name"])
    where = {"output_dir": str(places.lora_folder()), "work_dir": str(places.work_folder(name))}
    return replace_by_name(TrainJob(), {"base": base, **chosen, **where})


def wished(values: dict[str, Any], base: str, pictures: Pictures) -> dict[str, Any]:
    """The settings that the goal decides for this base and so many pictures."""
    goal = values.get("goal", GOALS[0])
    family = architecture_of(base).family if base else FAMILIES[0]
    if goal == CUSTOM or family not in FAMILIES:
        return {"steps": values["total_steps"]} if values.get("total_steps") else {}
    count = sum(path.suffix.lower() in SUFFIXES for path in Path(pictures.folder).rglob("*"))
    wish = Wish(goal, values.get("effort", EFFORTS[1]), family, count, bool(values.get("low_memory")))
    return settings_for(wish, values.get("total_steps") or None)


def run_train(context: Context, values: dict[str, Any]) -> Result:
    job = train_job(values)
    done = perform(context, job, job.name)
    return trained(job, done, values.get("goal") != CUSTOM)


def trained(job: TrainJob, done: Done, by_goal: bool) -> Result:

    path = Path(done.finished.outputs[0])
    previews = [read_picture(p.path) for p in done.previews()[-SHOWN:] if Path(p.path).exists()]
    plot = image_of([loss_chart(LossCurve.from_events(done.events), job.name)])
    name = places.listed_name("loras", path)
    text = report(job, done, name)
    shown = {"lora_loom": [done.id], "text": [text]}
    return Result((of_unet(host.read_tensors(path)), name, plot, image_of(previews), text), shown)


def of_unet(tensors: dict[str, Any]) -> dict[str, Any]:
    """What ComfyUI's LORA_MODEL holds: its loader takes no CLIP and warns of every key of a text encoder."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("lora_te")}


def report(job: TrainJob, done: Done, name: str) -> str:
    """What was trained, for a person."""
    figures = done.finished.report
    loss, held_out = figures.get("loss"), figures.get("held_out") or []
    lines = [f"{name}: {figures.get('steps')} steps on {Path(job.base).name}"]
    lines += [f"Loss {loss:.4f}"] if isinstance(loss, float) else []
    lines += [f"Held-out loss {held_out[0][1]:.4f} -> {held_out[-1][1]:.4f}"] if len(held_out) > 1 else []
    values = {s.name: _leaf(job, s.path) for s in settings(TrainJob)}
    return "\n".join([*lines, *explained(values), *done.notes])


def _leaf(job: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        job = getattr(job, part)
    return job
