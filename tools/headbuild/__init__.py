"""Parts of ``tools/build_prior.py``: each file makes one ingredient of the embedded head."""
