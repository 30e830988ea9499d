"""What Quire makes: one module per Dagster asset."""

import warnings

from dagster import BetaWarning

# Backfill policies are marked beta; each asset would say so in every process that loads it.
warnings.filterwarnings("ignore", category=BetaWarning)
