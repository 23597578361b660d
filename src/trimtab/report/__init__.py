"""Results as people see them: terminal highlights and one self-contained page. Renders plain data, measures nothing."""
