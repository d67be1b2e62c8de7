"""ComfyUI's door. Loading it costs nothing: all work happens when ComfyUI asks for the nodes."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():  # type: ignore[no-untyped-def]
    """Called once by ComfyUI; returns its `ComfyExtension` with our nodes."""
    from .comfy_nodes import extension

    return extension()


def __getattr__(name: str):  # type: ignore[no-untyped-def]
    """Hosts that know no entry point ask for NODE_CLASS_MAPPINGS; to all others there is none."""
    if name in ("NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"):
        from .comfy_nodes import mappings

        found = mappings()
        if name in found:
            return found[name]
    raise AttributeError(name)
