"""What touches ComfyUI beyond a node's schema: devices and models (models.py), progress and the stop button (run.py)."""
