"""Reading and writing: pictures, priors."""
