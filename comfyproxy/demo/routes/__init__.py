"""The routes of ComfyUI, by what they are about; each module has one class, made for one `Machine`."""
