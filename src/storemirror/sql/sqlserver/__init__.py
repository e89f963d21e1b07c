"""SQL Server and Azure SQL: what is rendered for them, and the adapter that calls it."""
