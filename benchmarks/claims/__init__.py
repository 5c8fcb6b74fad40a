"""The paper's claims on many models: one protocol, one row per model, tables and verdicts."""
