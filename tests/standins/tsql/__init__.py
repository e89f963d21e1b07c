"""
Runs what is rendered for SQL Server on PostgreSQL, one rewritten statement after the other.

No SQL Server runs where these tests do, and its parser takes a statement whose columns do not
exist.  Here every statement is bound and run, and what comes of it compared with PostgreSQL's own
procedures.  It knows the T-SQL that our templates write, and no other.

What it cannot see: locks, plans, hints, what SQL Server converts and compares otherwise
(collations, trailing spaces, surrogates), and what it refuses to compile.
"""
