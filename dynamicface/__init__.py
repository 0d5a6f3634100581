"""DynamicFace: a face taken apart into identity, expression, pose, illumination and background, and put together again."""
