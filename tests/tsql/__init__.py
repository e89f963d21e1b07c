"""
T-SQL judged where no SQL Server is: by Microsoft's own parser, and by a linter.

`python -m tests.tsql FILE ...` (`make tsql ARGS=...`) for a person; `running_judge` for a test.
"""
