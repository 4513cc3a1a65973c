"""The report page: facts gathered from artifacts, then drawn; no fact is computed while drawing."""
