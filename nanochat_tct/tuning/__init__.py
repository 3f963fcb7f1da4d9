"""The best model for a fixed budget: a ledger, a sweep on Ray Tune, fits, a final run, a report."""
