"""A node for the real ComfyUI of tests/real, which puts this file into its custom_nodes.

A job that only waits lasts as long on a busy machine as on a quiet one, and leaves the processor to others.
It can be interrupted at any moment and reports its progress, as sampling does. A file `released` in the
server's directory ends the waiting of all its jobs.
"""

import os
import time

import comfy.model_management
import comfy.utils
import torch
from PIL import Image

STEP = 0.1
"""Seconds from one report of progress to the next; it can be interrupted as often."""


class WaitAndDraw:
    """Waits, then makes one plain picture."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "draw"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "seconds": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 60.0, "step": 0.1}),
                "color": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "display": "color"}),
                "previews": ("BOOLEAN", {"default": False}),
            }
        }

    @classmethod
    def IS_CHANGED(cls, **_):
        # NaN is equal to nothing: it waits again in each prompt.
        return float("nan")

    def draw(self, seconds, color, previews):
        rgb = (color >> 16 & 0xFF, color >> 8 & 0xFF, color & 0xFF)
        preview = ("JPEG", Image.new("RGB", (64, 64), rgb), None) if previews else None
        steps = max(1, round(seconds / STEP))
        progress, begun = comfy.utils.ProgressBar(steps), time.monotonic()
        for step in range(1, steps + 1):
            comfy.model_management.throw_exception_if_processing_interrupted()
            if os.path.exists("released"):
                break
            time.sleep(max(0.0, begun + seconds * step / steps - time.monotonic()))
            progress.update_absolute(step, steps, preview)
        return (torch.tensor(rgb, dtype=torch.float32).div(255).expand(1, 64, 64, 3),)


NODE_CLASS_MAPPINGS = {"WaitAndDraw": WaitAndDraw}
