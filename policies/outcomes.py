"""Outcome tables: the file shape that training reads and `tw replay` answers from (owned by the learning side)."""
