-- sqlfluff 4.5.0 knows ALTER TABLE ... SET for system versioning alone.
ALTER TABLE [dbo].[DmMessage] SET (LOCK_ESCALATION = DISABLE);
