"""A user's project, which the tests of deidbench copy (without this file) and run elsewhere."""

collect_ignore_glob = ["*"]
