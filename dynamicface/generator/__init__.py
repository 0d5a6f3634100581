"""The embedded generator: network, sampling, weights; and the files of other projects it reads."""
