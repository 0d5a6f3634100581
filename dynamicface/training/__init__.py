"""Training of the embedded generator: photographs to shards, losses, the loop. How the weights were made: `docs/model_card.md`."""
