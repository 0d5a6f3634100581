from __future__ import annotations

import pytest

from dynamicface.perception import Perception


@pytest.fixture(scope="session")
def perception() -> Perception:
    """The shipped networks."""
    return Perception.load()
