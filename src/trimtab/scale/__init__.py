"""Long work in units: a run folder that survives being killed, on one machine or on many."""
