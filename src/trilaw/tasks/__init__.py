"""Problems and verifiers: one file a task, one file a kind of answer. No torch."""
