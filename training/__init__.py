"""Training of Quire's own copy-detection encoder; ``python -m training.train --help``."""
