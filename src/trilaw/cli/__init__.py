"""The command line: one file a verb, each a thin coat over a public function."""
