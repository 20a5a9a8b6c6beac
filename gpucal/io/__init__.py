"""Reading and writing: stores, tables and foreign formats. What the numbers mean belongs in steps."""
