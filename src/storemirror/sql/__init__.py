"""Stage 5: tables and procedures, rendered from the declarations, on one folder a dialect."""
