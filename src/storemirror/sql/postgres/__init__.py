"""PostgreSQL: connection, embedded server, templates, adapter."""
