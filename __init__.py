"""ComfyUI's door. Loading it costs nothing: all work happens when ComfyUI asks for the nodes."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():  # type: ignore[no-untyped-def]
    """Called once by ComfyUI; returns its `ComfyExtension` with our nodes."""
    from .comfy_nodes import extension

    return extension()
