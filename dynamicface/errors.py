"""Errors that are instructions: what was found, what was expected, what to do."""

from __future__ import annotations


class DynamicFaceError(ValueError):
    """Base of every error the artist can act on. The message is one or two plain sentences."""


class NoFaceError(DynamicFaceError):
    """No usable face was found where one is needed."""


class WeightsError(DynamicFaceError):
    """A weight file is missing, truncated, altered or of another kind."""


class ImageError(DynamicFaceError):
    """An image or mask has an unusable shape, size or content."""
