"""Pictures and pages of a run, made from its files alone: no live object, no torch."""
