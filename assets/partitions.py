"""Partitions: what one materialization of an asset covers."""

import dagster as dg

page_batches = dg.DynamicPartitionsDefinition(name="page_batches")
"""A few pages of one document each; ``store.page_batches`` knows which. Keys are ``[a-z0-9-]``."""

gallery_batches = dg.DynamicPartitionsDefinition(name="gallery_batches")
"""About 500 items of the gallery each; ``gallery_items`` knows which."""

scan_batches = dg.DynamicPartitionsDefinition(name="scan_batches")
"""One photograph each: it may show dozens of items."""

days = dg.DailyPartitionsDefinition(start_date="2026-01-01")
"""What is measured from day to day, in UTC."""

per_batches = dg.BackfillPolicy.multi_run(25)
"""A run takes up to 25 batches: starting a step costs about 0.9 s however many it holds, so nine
assets over 25 batches pay 0.04 s per asset and batch. Memory does not grow with the number of
batches, and a killed run resumes at the unit where it stopped."""
