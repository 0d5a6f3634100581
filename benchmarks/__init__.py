"""Measurements of the prior path. Each is a command: `python -m benchmarks.fit`; all of them: `python -m benchmarks`.

Most need faces nobody may redistribute, so they take a data folder (--data) and skip with a reason where there is none:

    london/     NNN_neutral.jpg and NNN_smile.jpg of the same people, 512 px (Face Research Lab London Set, CC BY 4.0)
    faces256/   NNNNN.jpg, one portrait each, any age, pose, light, glasses (synthetic people)

They use scikit-image, scipy, OpenCV and the independent judge of `judge.py`, none of which the product needs.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin while they wait spoil timings on shared cores
