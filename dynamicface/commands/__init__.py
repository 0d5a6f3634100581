"""Commands of `python -m dynamicface` beyond those in `cli.py`, one per file; how to write one: `common.py`."""
